"""Heartbeats from robot sockets to watchers: latency, loss, order, beside a control without a fleet.

    python benchmarks/heartbeats.py [--robots 2000] [--rates 500,2000] [--watchers 20] [--seconds 6]

Robots send on a fixed schedule; every watcher looks each event up in it, so a late sender counts as latency
and nothing lost, doubled or out of order is missed. The control is the same door, robots and watchers with
an in-process list in place of the fleet: no Ray, no registry, no validation, no auth. Rounds alternate; the
medians are printed, and what counts is the difference. All of it shares this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import httpx
import msgspec
import uvicorn
import uvloop
from fastapi import FastAPI, WebSocket
from raw_websocket import RawSocket, child, masked_text

from api.auth import mint
from api.hub import Hub
from api.main import Server
from api.settings import load
from api.websocket_protocol import EXTENSION, FleetSocket
from fleet.events import ROBOT_STATUS, RobotStatusChanged, encode

LEAD_S = 1.0
TAIL_S = 1.5


class Plan(msgspec.Struct, frozen=True):
    """Beat k is due at start + k / rate; it is the (k // robots)-th of robot k % robots."""

    robots: int
    rate: int
    beats: int
    start_s: float

    def due_s(self, robot: int, number: int) -> float:
        return self.start_s + (number * self.robots + robot) / self.rate


class Seen(msgspec.Struct, frozen=True):
    """Over all watchers of one round."""

    p50_ms: float
    p99_ms: float
    lost: int
    doubled: int
    reordered: int


def watch(port: int, path: str, count: int, pipe: Connection) -> None:
    """A process of its own: what it measures must not wait behind the senders."""

    async def run() -> None:
        sockets = [await RawSocket.connect(port, path, keep=True) for _ in range(count)]
        pipe.send(None)
        loop = asyncio.get_running_loop()
        plan: Plan = await loop.run_in_executor(None, pipe.recv)
        await asyncio.sleep(plan.start_s + plan.beats / plan.rate + TAIL_S - time.monotonic())
        pipe.send(judge(sockets, plan))

    uvloop.run(run())


def judge(sockets: list[RawSocket], plan: Plan) -> Seen:
    latencies_ms: list[float] = []
    lost = doubled = reordered = 0
    for peer in sockets:
        seen: set[tuple[int, int]] = set()
        last = [-1] * plan.robots
        for robot, number, received_s in peer.heartbeats():
            doubled += (robot, number) in seen
            reordered += number < last[robot]
            seen.add((robot, number))
            last[robot] = number
            latencies_ms.append((received_s - plan.due_s(robot, number)) * 1_000)
        lost += plan.beats - len(seen)
    latencies_ms.sort()
    p50, p99 = (latencies_ms[int(len(latencies_ms) * share)] for share in (0.5, 0.99))
    return Seen(p50, p99, lost, doubled, reordered)


async def beat(
    port: int, path: str, token: str, robots: int, rate: int, beats: int, pipe: Connection
) -> Seen:
    sockets = [await RawSocket.connect(port, f"{path}bench-{n}{token}") for n in range(robots)]
    for peer in sockets:
        peer.transport.write(masked_text(b'{"type":"register"}'))
    while any(peer.received == 0 for peer in sockets):  # welcomed
        await asyncio.sleep(0.05)
    plan = Plan(robots, rate, beats, time.monotonic() + LEAD_S)
    pipe.send(plan)
    sent = 0
    text = b'{"type":"heartbeat","status":"idle","cpu_percent":12.5,"memory_mb":%r}'
    while sent < beats:
        due = min(beats, int((time.monotonic() - plan.start_s) * rate) + 1)
        for k in range(sent, due):
            number, robot = divmod(k, robots)
            sockets[robot].transport.write(masked_text(text % (1_024 + number / 1_024)))
        sent = max(sent, due)
        await asyncio.sleep(0.001)
    seen: Seen = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    for peer in sockets:
        peer.transport.abort()
    return seen


def one_round(port: int, paths: tuple[str, str], token: str, given: Any, rate: int) -> Seen:
    with child(watch, port, paths[0] + token, given.watchers) as pipe:
        pipe.recv()
        beats = int(rate * given.seconds)
        return uvloop.run(beat(port, paths[1], token, given.robots, rate, beats, pipe))


# -- the two servers


def serve_control(pipe: Connection) -> None:
    async def run() -> None:
        feed = Hub(None, load(jwt_dev_mode=True)).feeds[ROBOT_STATUS]  # type: ignore[arg-type]
        app = FastAPI()

        class Robot:
            def __init__(self, robot_id: str) -> None:
                self.robot_id = robot_id

            def on_text(self, data: bytes) -> None:
                beat = json.loads(data)
                if beat["type"] == "heartbeat":
                    fields = (self.robot_id, beat["status"], beat["cpu_percent"], beat["memory_mb"], "")
                    feed.push([encode(RobotStatusChanged(*fields))])

            def on_binary(self, data: bytes) -> None: ...

            def on_writable(self) -> None: ...

            def on_control(self) -> None: ...

            def on_end(self) -> None: ...

        async def until_closed(websocket: WebSocket) -> None:
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass

        @app.websocket("/watch")
        async def watching(websocket: WebSocket) -> None:
            await websocket.accept()
            watcher = feed.add(websocket.scope["extensions"][EXTENSION])
            await until_closed(websocket)
            feed.remove(watcher)

        @app.websocket("/ws/robot/{robot_id}")
        async def robot(websocket: WebSocket, robot_id: str) -> None:
            await websocket.accept()
            websocket.scope["extensions"][EXTENSION].listener = Robot(robot_id)
            websocket.scope["extensions"][EXTENSION].write(b"\x81\x02{}")
            await until_closed(websocket)

        config = uvicorn.Config(app, port=0, ws=FleetSocket, ws_per_message_deflate=False, log_level="error")
        server = Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        await serving

    uvloop.run(run())


@contextmanager
def fleetcast(secret: str) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "fleetcast", "serve", "--port", str(port)]
    environment = {**os.environ, "JWT_SECRET_KEY": secret}
    server = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        wait_ready(port, server)
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def wait_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/api/v1/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        if server.poll() is not None:
            raise SystemExit("the server ended")
        time.sleep(0.2)
    raise SystemExit("the server was not ready")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--robots", type=int, default=2_000)
    parser.add_argument("--rates", default="500,2000")
    parser.add_argument("--watchers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    secret = secrets.token_hex(32)
    token = "?token=" + mint(secret, "bench", "admin", 3_600, time.time())
    ours = ("/api/v1/ws/robot-status", "/api/v1/ws/robot/")
    rates = [int(rate) for rate in given.rates.split(",")]
    found: dict[tuple[int, str], list[Seen]] = {(r, n): [] for r in rates for n in ("fleetcast", "control")}
    with fleetcast(secret) as port, child(serve_control) as control:
        control_port = control.recv()
        for _ in range(given.rounds):
            for rate in rates:
                found[rate, "fleetcast"].append(one_round(port, ours, token, given, rate))
                paths = ("/watch", "/ws/robot/")
                found[rate, "control"].append(one_round(control_port, paths, "", given, rate))
    print(
        f"{given.robots} robots, {given.watchers} watchers, {given.seconds:g} s, "
        f"medians of {given.rounds} rounds"
    )
    for (rate, name), rows in found.items():
        p50, p99 = (statistics.median(getattr(row, field) for row in rows) for field in ("p50_ms", "p99_ms"))
        faults = [sum(getattr(row, field) for row in rows) for field in ("lost", "doubled", "reordered")]
        print(
            f"{rate:7,} beats/s  {name:10} p50 {p50:7.1f} ms  p99 {p99:7.1f} ms  "
            "lost {}, doubled {}, reordered {}".format(*faults)
        )


if __name__ == "__main__":
    main()
