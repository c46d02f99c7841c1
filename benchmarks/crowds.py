"""Crowds: 10,000 idle watchers, and 1,000 connects and disconnects a second during a broadcast.

    python benchmarks/crowds.py [--idle 10000] [--flaps-per-s 1000] [--seconds 10] [--watchers 50]

The idle ones connect, get one event each, and leave. The flapping ones come and go, every other one by a
reset, while others watch. After each the server must be as it was: sockets counted, sockets admitted,
connections, tasks, descriptors. Ends with an error if it is not, or if somebody missed an event.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import msgspec
import uvloop
from processes import RoundFailed, child, heard, raise_file_limit, told
from raw_websocket import RawSocket
from watched_door import PATH, Look, Publish, Published, State, serve

AT_ONCE = 100
PATIENCE_S = 60.0
EVENT_BYTES = 60  # at least: one frame of one event


class Crowd(msgspec.Struct, frozen=True):
    """Hold so many sockets from now on."""

    sockets: int


class Flap(msgspec.Struct, frozen=True):
    per_s: int
    seconds: float


async def gather_crowd(port: int, peers: list[RawSocket], count: int) -> None:
    while len(peers) < count:
        batch = min(AT_ONCE, count - len(peers))
        peers += await asyncio.gather(*(RawSocket.connect(port, PATH) for _ in range(batch)))


async def flap(port: int, order: Flap) -> int:
    """How many came and went. Late ones are not skipped: the pace is what the answer tells."""
    loop, done, running = asyncio.get_running_loop(), 0, set()
    start_s = loop.time()

    async def once(number: int) -> None:
        peer = await RawSocket.connect(port, PATH)
        peer.transport.abort() if number % 2 else peer.transport.close()

    for number in range(round(order.per_s * order.seconds)):
        await asyncio.sleep(max(0.0, start_s + number / order.per_s - loop.time()))
        task = loop.create_task(once(number))
        running.add(task)
        task.add_done_callback(running.discard)
        while len(running) > AT_ONCE:
            await asyncio.sleep(0.001)
        done += 1
    await asyncio.gather(*running)
    return done


def clients(port: int, pipe: Connection) -> None:
    """A process of its own. Says how many sockets have heard anything, or how many flapped."""

    async def run() -> None:
        peers: list[RawSocket] = []
        with suppress(EOFError, ConnectionError):
            while True:
                order = await heard(pipe)
                if isinstance(order, Crowd) and order.sockets:
                    await gather_crowd(port, peers, order.sockets)
                    pipe.send(len(peers))
                elif isinstance(order, Crowd):
                    for peer in peers:
                        peer.transport.close()
                    peers.clear()
                    pipe.send(0)
                elif isinstance(order, Flap):
                    pipe.send(await flap(port, order))
                else:
                    pipe.send(sum(peer.received >= EVENT_BYTES for peer in peers))

    raise_file_limit()
    uvloop.run(run())


def ask(pipe: Connection, order: object) -> object:
    pipe.send(order)
    return told(pipe, PATIENCE_S * 3)


def look(door: Connection) -> State:
    state = ask(door, Look())
    assert isinstance(state, State)
    return state


def back_to(door: Connection, baseline: State) -> State:
    """Waits until the server is as it was. Raises RoundFailed if it does not come to that."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        state = look(door)
        if msgspec.structs.replace(state, own_kib=0) == msgspec.structs.replace(baseline, own_kib=0):
            return state
        if time.monotonic() > deadline_s:
            raise RoundFailed(f"the server was {baseline}, and stays {state}")
        time.sleep(0.05)


def idle_crowd(door: Connection, crowd: Connection, count: int) -> None:
    baseline = look(door)
    start_s = time.monotonic()
    ask(crowd, Crowd(count))
    took_s = time.monotonic() - start_s
    full = look(door)
    start_s = time.monotonic()
    ask(door, Publish(0.01, 100))
    while ask(crowd, None) != count:
        if time.monotonic() > start_s + PATIENCE_S:
            raise RoundFailed(f"only {ask(crowd, None)} of {count} watchers got the event")
    told_s = time.monotonic() - start_s
    ask(crowd, Crowd(0))
    after = back_to(door, baseline)
    each_kib = (full.own_kib - baseline.own_kib) / count
    print(f"{full.counted} idle watchers: {count / took_s:.0f} handshakes/s, {each_kib:.1f} KiB each")
    print(f"  one event reached all in {told_s * 1_000:.0f} ms; after they left: {after}")


def flapping(door: Connection, crowd: Connection, watchers: int, order: Flap) -> None:
    baseline = look(door)
    ask(crowd, Crowd(watchers))
    door.send(Publish(order.seconds, 100))
    start_s = time.monotonic()
    flaps = ask(crowd, order)
    took_s = time.monotonic() - start_s
    published: Published = told(door, PATIENCE_S)
    if published.gone_after_s:
        raise RoundFailed("a watcher that reads was dropped")
    if ask(crowd, None) != watchers:
        raise RoundFailed("a watcher got nothing")
    ask(crowd, Crowd(0))
    after = back_to(door, baseline)
    print(f"{flaps} connects and disconnects in {took_s:.1f} s, {flaps / took_s:.0f} a second")
    print(f"  during {published.events} events to {watchers} watchers; after they left: {after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--flaps-per-s", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--watchers", type=int, default=50)
    given = parser.parse_args()
    with child(serve) as door:
        port = told(door)
        with child(clients, port) as crowd:
            idle_crowd(door, crowd, given.idle)
            flapping(door, crowd, given.watchers, Flap(given.flaps_per_s, given.seconds))


if __name__ == "__main__":
    main()
