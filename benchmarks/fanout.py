"""Fan-out: CPU of the server per delivered event, ours against one send_text per client and event.

    python benchmarks/fanout.py [--clients 200] [--events 20000] [--rounds 3]

Each round serves the same events to the same number of raw clients, first one way and then the other, in a
process of its own. The ratio of the medians is what counts; absolute figures drift with the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from api.hub import Hub
from api.main import Server
from api.settings import load
from api.websocket_protocol import EXTENSION, FleetSocket
from fleet.events import LIVE_JOBS, JobStatusChanged, encode

BATCH = 50
EVENT = encode(JobStatusChanged("job-0123456789abcdef0123", "completed", "2025-01-15T10:30:00.000Z"))


def ours_app() -> tuple[FastAPI, Any]:
    feed = Hub(None, load(jwt_dev_mode=True)).feeds[LIVE_JOBS]  # type: ignore[arg-type]
    app = FastAPI()

    @app.websocket("/")
    async def watch(websocket: WebSocket) -> None:
        await websocket.accept()
        watcher = feed.add(websocket.scope["extensions"][EXTENSION])
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
        feed.remove(watcher)

    async def send(count: int) -> None:
        feed.push([EVENT] * count)

    return app, send


def control_app() -> tuple[FastAPI, Any]:
    """The usual connection manager: json.dumps and send_text with a timeout, per client and event."""
    sockets: set[WebSocket] = set()
    app = FastAPI()
    event = json.loads(EVENT)

    @app.websocket("/")
    async def watch(websocket: WebSocket) -> None:
        await websocket.accept()
        sockets.add(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            sockets.discard(websocket)

    async def send(count: int) -> None:
        for _ in range(count):
            for socket in sockets:
                await asyncio.wait_for(socket.send_text(json.dumps(event)), 1)

    return app, send


def serve(ours: bool, pipe: Connection) -> None:
    uvloop.run(_serve(ours, pipe))


async def _serve(ours: bool, pipe: Connection) -> None:
    app, send = ours_app() if ours else control_app()
    protocol: Any = FleetSocket if ours else "websockets-sansio"
    config = uvicorn.Config(app, port=0, ws=protocol, ws_per_message_deflate=False, log_level="error")
    server = Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    pipe.send(server.servers[0].sockets[0].getsockname()[1])
    loop = asyncio.get_running_loop()
    events = await loop.run_in_executor(None, pipe.recv)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(0, events, BATCH):
        await send(BATCH)
        await asyncio.sleep(0)
    await loop.run_in_executor(None, pipe.recv)
    after = resource.getrusage(resource.RUSAGE_SELF)
    pipe.send(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Sink(asyncio.Protocol):
    """A raw client that counts bytes."""

    def __init__(self, port: int, opened: asyncio.Future[None]) -> None:
        self.port, self.opened, self.received, self.head = port, opened, 0, b""

    def connection_made(self, transport: Any) -> None:
        transport.write(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n" % self.port
        )

    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            self.received += len(data)
            return
        self.head += data
        _, end, rest = self.head.partition(b"\r\n\r\n")
        if end:
            self.received = len(rest)
            self.opened.set_result(None)


async def measure(port: int, clients: int, events: int, pipe: Connection) -> tuple[float, float]:
    """(seconds, server CPU seconds) to deliver all events to all clients."""
    loop = asyncio.get_running_loop()
    sinks = []
    for _ in range(clients):
        sink = Sink(port, loop.create_future())
        await loop.create_connection(lambda sink=sink: sink, "127.0.0.1", port)
        await sink.opened
        sinks.append(sink)
    wanted = events * (2 + len(EVENT) if len(EVENT) < 126 else 4 + len(EVENT))
    began = time.perf_counter()
    pipe.send(events)
    while any(sink.received < wanted for sink in sinks):
        await asyncio.sleep(0.01)
        if time.perf_counter() - began > 300:
            raise SystemExit("not delivered within 300 s")
    seconds = time.perf_counter() - began
    pipe.send(None)
    cpu = await loop.run_in_executor(None, pipe.recv)
    return seconds, cpu


def one_round(ours: bool, clients: int, events: int) -> float:
    """Server CPU in microseconds per delivered event."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(ours, there))
    process.start()
    try:
        _, cpu = uvloop.run(measure(here.recv(), clients, events, here))
    finally:
        process.terminate()
        process.join()
    return cpu / (clients * events) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    ours, control = [], []
    for _ in range(given.rounds):
        ours.append(one_round(True, given.clients, given.events))
        control.append(one_round(False, given.clients, max(BATCH, given.events // 50)))
    a, b = statistics.median(ours), statistics.median(control)
    print(f"{given.clients} clients, {len(EVENT)} bytes an event, {given.rounds} rounds, medians")
    print(f"fleetcast          {a:8.3f} us of server CPU per delivery ({1e6 / a:12,.0f} per CPU second)")
    print(f"connection manager {b:8.3f} us of server CPU per delivery ({1e6 / b:12,.0f} per CPU second)")
    print(f"ratio              {b / a:8.1f}")


if __name__ == "__main__":
    sys.exit(main())
