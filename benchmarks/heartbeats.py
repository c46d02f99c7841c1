"""Heartbeats from robot sockets to watchers, on real Ray: latency from the beat to its receipt.

    python benchmarks/heartbeats.py [--robots 500] [--rates 500,2000,5000] [--watchers 20] [--seconds 8]

Each beat carries its intended send time (in `memory_mb`), so that a late sender counts as latency. Rates
alternate over `--rounds`; medians are printed. Robots, server and watchers share this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import httpx
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from api.auth import mint

WATCH_TAIL_S = 2.0


class Robot(WSListener):
    def __init__(self) -> None:
        self.transport: WSTransport | None = None
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        transport.send(WSMsgType.TEXT, b'{"type":"register","id":1}')

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if b'"ack"' in frame.get_payload_as_bytes() and not self.welcomed.done():
            self.welcomed.set_result(None)


class Watch(WSListener):
    def __init__(self, latencies_ms: list[float], began: float) -> None:
        self.latencies_ms, self.began = latencies_ms, began

    def on_ws_connected(self, transport: WSTransport) -> None:
        pass

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now = time.monotonic() - self.began
        sent = json.loads(frame.get_payload_as_bytes())["memory_mb"]
        if sent:
            self.latencies_ms.append((now - sent) * 1_000)


def watchers(url: str, count: int, began: float, seconds: float, pipe: Any) -> None:
    """A process of its own: what it measures must not wait behind the senders."""

    async def run() -> None:
        latencies: list[float] = []
        for _ in range(count):
            await ws_connect(lambda: Watch(latencies, began), url)
        pipe.send("ready")
        await asyncio.sleep(seconds + WATCH_TAIL_S)
        pipe.send(latencies)

    uvloop.run(run())


async def beat(base: str, token: str, robots: int, rate: int, seconds: float, began: float) -> int:
    """Sends `rate` beats a second, in turn over all robots; returns how many."""
    bodies = [Robot() for _ in range(robots)]
    for number, robot in enumerate(bodies):
        await ws_connect(lambda robot=robot: robot, f"{base}/robot/bench-{number}?token={token}")
    await asyncio.gather(*(robot.welcomed for robot in bodies))
    start, sent, total = time.monotonic() + 0.5, 0, int(rate * seconds)
    while sent < total:
        now = time.monotonic()
        while sent < total and (due := start + sent / rate) <= now:
            message = b'{"type":"heartbeat","status":"idle","cpu_percent":12.5,"memory_mb":%.6f}'
            transport = bodies[sent % robots].transport
            assert transport is not None
            transport.send(WSMsgType.TEXT, message % (due - began))
            sent += 1
        await asyncio.sleep(0.001)
    await asyncio.sleep(WATCH_TAIL_S / 2)
    for robot in bodies:
        if robot.transport is not None:
            robot.transport.disconnect()
    return total


def one_round(base: str, token: str, given: Any, rate: int) -> tuple[float, float, float]:
    """(p50 ms, p99 ms, share of expected deliveries that came)."""
    began = time.monotonic()
    here, there = multiprocessing.Pipe()
    url = f"{base}/robot-status?token={token}"
    span = given.seconds + 3 + given.robots / 400
    process = multiprocessing.get_context("spawn").Process(
        target=watchers, args=(url, given.watchers, began, span, there)
    )
    process.start()
    try:
        here.recv()
        total = uvloop.run(beat(base, token, given.robots, rate, given.seconds, began))
        latencies = sorted(here.recv())
    finally:
        process.terminate()
        process.join()
    p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    return p50, p99, len(latencies) / (total * given.watchers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--robots", type=int, default=500)
    parser.add_argument("--rates", default="500,2000,5000")
    parser.add_argument("--watchers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = secrets.token_hex(32)
    command = [sys.executable, "-m", "fleetcast", "serve", "--port", str(port)]
    environment = {**os.environ, "JWT_SECRET_KEY": secret}
    server = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        wait_ready(port, server)
        token = mint(secret, "bench", "admin", 3_600, time.time())
        base = f"ws://127.0.0.1:{port}/api/v1/ws"
        rates = [int(rate) for rate in given.rates.split(",")]
        found: dict[int, list[tuple[float, float, float]]] = {rate: [] for rate in rates}
        for _ in range(given.rounds):
            for rate in rates:
                found[rate].append(one_round(base, token, given, rate))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    print(f"{given.robots} robots, {given.watchers} watchers, medians of {given.rounds} rounds")
    for rate, rows in found.items():
        p50, p99, share = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{rate:7,} beats/s   p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   delivered {share:.2%}")


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


if __name__ == "__main__":
    main()
