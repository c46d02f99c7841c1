"""Fan-out: server CPU per delivered event, ours beside the usual connection manager.

    python benchmarks/fanout.py [--watchers 200] [--flushes 150] [--rounds 3]

Ours is the whole door over an in-process fleet: `publish`, the feed, the pump, the hub, the socket. The
control is FastAPI's connection manager: json.dumps and send_text with a timeout of 1 s for each client. Both
send 1, 10 and 50 events every 20 ms, so that a flush holds just those; what the process costs while nothing
is sent is measured before and taken off. Rounds alternate; the ratio of the medians is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uvicorn
import uvloop
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from raw_websocket import RawSocket, child

from actors.local import LocalFleet
from api.main import DoorServer, Server
from api.settings import load
from fleet.events import LIVE_JOBS, JobStatusChanged, encode
from fleet.limits import Limits

PACE_S = 0.02
EVENT = encode(JobStatusChanged("job-0123456789abcdef0123", "completed", "2025-01-15T10:30:00.000Z"))
FRAME_BYTES = len(EVENT) + (2 if len(EVENT) < 126 else 4)

Send = Callable[[int], Awaitable[Any]]


class Load(msgspec.Struct, frozen=True):
    flushes: int
    events: int


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def paced(load: Load, send: Send | None) -> float:
    """CPU seconds of this process while `load` is sent, or while nothing is for as long."""
    loop = asyncio.get_running_loop()
    before, start_s = cpu_s(), loop.time()
    for number in range(load.flushes):
        await asyncio.sleep(start_s + number * PACE_S - loop.time())
        if send is not None:
            await send(load.events)
    await asyncio.sleep(PACE_S)
    return cpu_s() - before


async def serve_loads(port: int, send: Send, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    pipe.send(port)
    while True:
        load: Load = await loop.run_in_executor(None, pipe.recv)
        idle_s = await paced(load, None)
        pipe.send(max(0.0, await paced(load, send) - idle_s))


def ours(pipe: Connection) -> None:
    async def run() -> None:
        fleet = LocalFleet(Limits())
        server = DoorServer(fleet, load(jwt_dev_mode=True, port=0))
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(server.run(started.set_result))
        room, sent = fleet.rooms.broadcasters[LIVE_JOBS], 0

        async def send(events: int) -> None:
            nonlocal sent
            await room.publish("bench", sent, [EVENT] * events)
            sent += events

        await serve_loads(await started, send, pipe)
        await serving

    uvloop.run(run())


def connection_manager(pipe: Connection) -> None:
    sockets: set[WebSocket] = set()
    app = FastAPI()
    event = json.loads(EVENT)

    @app.websocket("/api/v1/ws/live-jobs")
    async def watch(websocket: WebSocket) -> None:
        await websocket.accept()
        sockets.add(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            sockets.discard(websocket)

    async def send(events: int) -> None:
        for _ in range(events):
            for socket in sockets:
                await asyncio.wait_for(socket.send_text(json.dumps(event, separators=(",", ":"))), 1)

    async def run() -> None:
        server = Server(
            uvicorn.Config(
                app, port=0, ws="websockets-sansio", ws_per_message_deflate=False, log_level="error"
            )
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        await serve_loads(server.servers[0].sockets[0].getsockname()[1], send, pipe)
        await serving

    uvloop.run(run())


async def deliver(port: int, watchers: int, load: Load, pipe: Connection) -> float:
    """Server CPU in microseconds per delivered event; every byte must have come."""
    peers = [await RawSocket.connect(port, "/api/v1/ws/live-jobs") for _ in range(watchers)]
    pipe.send(load)
    cpu: float = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    wanted = load.flushes * load.events * FRAME_BYTES
    async with asyncio.timeout(60):
        while any(peer.received < wanted for peer in peers):
            await asyncio.sleep(0.01)
    for peer in peers:
        assert peer.received == wanted
        peer.transport.abort()
    return cpu / (watchers * load.flushes * load.events) * 1e6


def one_round(server: Callable[[Connection], None], watchers: int, load: Load) -> float:
    with child(server) as pipe:
        return uvloop.run(deliver(pipe.recv(), watchers, load, pipe))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--flushes", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(f"{given.watchers} watchers, {len(EVENT)} bytes an event, medians of {given.rounds} rounds;")
    print("server CPU per delivered event")
    for events in (1, 10, 50):
        rows: dict[str, list[float]] = {"fleetcast": [], "connection manager": []}
        for _ in range(given.rounds):
            rows["fleetcast"].append(one_round(ours, given.watchers, Load(given.flushes, events)))
            few = Load(max(5, given.flushes // events), events)  # it takes seconds for what ours does at once
            rows["connection manager"].append(one_round(connection_manager, given.watchers, few))
        a, b = (statistics.median(row) for row in rows.values())
        print(
            f"{events:3} a flush  fleetcast {a:7.3f} us  connection manager {b:7.3f} us  ratio {b / a:6.1f}"
        )


if __name__ == "__main__":
    main()
