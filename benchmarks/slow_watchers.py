"""What slow watchers cost the others: one that never reads and one that reads a byte a second, among 200.

    python benchmarks/slow_watchers.py [--watchers 200] [--rate 2000] [--seconds 4] [--rounds 5]

Rounds with them alternate with rounds without. Wanted: they are gone within 2 s of their write buffer
filling, the server grows by less than 8 MiB, and the 99th percentile of the others' latency, from publish to
receipt, at most doubles or grows by 20 ms. (A peer that vanishes needs a network that can be cut: see
tests/system.)
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

import uvloop
from processes import child, heard, told
from raw_websocket import RawSocket
from watched_door import PATH, Publish, Published, serve

MEASURED = 20  # of the watchers; parsing what all of them get would take more than a core
_STAMP = re.compile(rb'"job_id":"(\d+)"')


class TimedSocket(RawSocket):
    def __init__(self, path: str, opened: asyncio.Future[None], measured: bool) -> None:
        super().__init__(path, opened)
        self.latencies_ms: list[float] = []
        self._measured = measured

    def heard(self, data: bytes) -> None:
        self.received += len(data)
        self.answer_ping(data)
        if self._measured:
            now = time.monotonic_ns()
            self.latencies_ms += [(now - int(stamp)) / 1e6 for stamp in _STAMP.findall(data)]


def watch(port: int, count: int, pipe: Connection) -> None:
    """A process of its own: says the 99th percentile (ms) since it was last asked."""

    async def run() -> None:
        peers = [await TimedSocket.connect(port, PATH, n < MEASURED) for n in range(count)]
        pipe.send(None)
        with suppress(EOFError, ConnectionError):
            while True:
                await heard(pipe)
                latencies_ms = sorted(ms for peer in peers for ms in peer.latencies_ms)
                pipe.send(latencies_ms[int(len(latencies_ms) * 0.99)])
                for peer in peers:
                    peer.latencies_ms.clear()

    uvloop.run(run())


def open_socket(port: int) -> socket.socket:
    """Shakes hands and takes as little as the kernel allows."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    peer.connect(("127.0.0.1", port))
    peer.sendall(
        f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    return peer


@contextmanager
def slow_ones(port: int) -> Iterator[None]:
    never, bytewise, over = open_socket(port), open_socket(port), threading.Event()

    def read_bytes() -> None:
        with suppress(OSError):
            while not over.wait(1):
                bytewise.recv(1)

    reader = threading.Thread(target=read_bytes)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
        never.close()
        bytewise.close()


def one_round(door: Connection, watchers: Connection, order: Publish) -> tuple[float, Published]:
    """(the watchers' 99th percentile in ms, what the server saw)"""
    door.send(order)
    published: Published = told(door, order.seconds + 60)
    watchers.send(None)
    return told(watchers), published


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    order = Publish(given.seconds, given.rate)
    calm_ms, with_ms, grew_kib, gone_s = [], [], [], []
    with child(serve) as door:
        port = told(door)
        with child(watch, port, given.watchers) as watchers:
            told(watchers)
            one_round(door, watchers, order)  # the ring fills, the caches warm
            for _ in range(given.rounds):
                calm_ms.append(one_round(door, watchers, order)[0])
                with slow_ones(port):
                    p99_ms, published = one_round(door, watchers, order)
                with_ms.append(p99_ms)
                grew_kib.append(published.grew_kib)
                gone_s += published.gone_after_s
    calm, slow = statistics.median(calm_ms), statistics.median(with_ms)
    print(f"{given.watchers} watchers, {given.rate} events/s, {given.rounds} rounds of {given.seconds:g} s")
    print(f"slow watchers gone           {len(gone_s)} of {2 * given.rounds}")
    print(f"after their buffer filled    {max(gone_s):.2f} s at most")
    print(f"the server grew by           {max(grew_kib) / 1_024:.2f} MiB at most")
    print(f"the others' p99              {calm:.1f} ms without, {slow:.1f} ms with slow watchers")


if __name__ == "__main__":
    main()
