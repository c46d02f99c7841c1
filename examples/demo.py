"""The whole system at work: a server with simulated robots, watched over its own streams.

    python examples/demo.py [--robots 10] [--seconds 0] [--port 0]

Starts `fleetcast serve --simulate` as a user would, then prints each job's life as live-jobs tells it and
a line of metrics now and then. Ctrl-C, or `--seconds`, ends it and everything it started. The exit code is
0 only if every job that ended was seen going through pending, claimed and running, in this order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time

import httpx
from websockets.asyncio.client import connect

from api.auth import mint

ORDER = ["pending", "claimed", "running"]
ENDS = {"completed", "failed", "cancelled"}
STARTUP_S = 90


class Lives:
    """What live-jobs said of each job, and the count of those that ended."""

    def __init__(self) -> None:
        self.open: dict[str, list[str]] = {}
        self.completed = 0
        self.failed = 0
        self.disordered: list[str] = []

    def hear(self, event: dict[str, str]) -> list[str]:
        """The statuses of this job so far; [] if it began before we watched."""
        job_id, status = event["job_id"], event["status"]
        if status == "pending":
            self.open.setdefault(job_id, [])
        if job_id not in self.open:
            return []
        life = self.open[job_id]
        life.append(status)
        if status in ENDS:
            self._end(job_id, life)
        return life

    def _end(self, job_id: str, life: list[str]) -> None:
        del self.open[job_id]
        self.completed += life[-1] == "completed"
        self.failed += life[-1] == "failed"
        # A failed attempt goes back to pending: its last attempt is what must be in order.
        if life[-1] != "cancelled" and life[-4:-1] != ORDER:
            self.disordered.append(f"{job_id}: {' > '.join(life)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(robots: int, port: int, secret: str, folder: str) -> subprocess.Popen[bytes]:
    """In a group of its own: Ctrl-C reaches this program only, which then ends the server once."""
    command = [sys.executable, "-m", "fleetcast", "serve", "--port", str(port), "--simulate", str(robots)]
    environment = {**os.environ, "JWT_SECRET_KEY": secret, "FLEETCAST_DATA_DIR": folder}
    environment.pop("JWT_DEV_MODE", None)
    return subprocess.Popen(command, env=environment, start_new_session=True)


async def until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    async with httpx.AsyncClient() as http:
        for _ in range(STARTUP_S * 5):
            if server.poll() is not None:
                raise SystemExit(f"the server ended with code {server.returncode}")
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(f"{url}/api/v1/health/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.2)
    raise SystemExit(f"the server was not ready within {STARTUP_S} s")


async def show_jobs(url: str, lives: Lives) -> None:
    async with connect(url) as stream:
        async for message in stream:
            life = lives.hear(json.loads(message))
            if life and life[-1] in ENDS:
                print(f"  {json.loads(message)['job_id']}  {' > '.join(life)}", flush=True)


async def show_metrics(url: str) -> None:
    async with connect(url) as stream:
        async for message in stream:
            data = json.loads(message)["data"]
            robots, jobs = data["robots"], data["jobs"]
            print(
                f"robots: {robots['busy']} busy, {robots['idle']} idle, {robots['offline']} offline | "
                f"jobs: {jobs['pending']} pending, {jobs['running']} running, "
                f"{jobs['completed_today']} completed, {jobs['failed_today']} failed | "
                f"mean wait {data['queue']['avg_wait_time_ms']} ms",
                flush=True,
            )


async def watch(port: int, secret: str, seconds: float, server: subprocess.Popen[bytes]) -> Lives:
    stopping, wait = hear_signals()
    ready = asyncio.create_task(until_ready(f"http://127.0.0.1:{port}", server))
    await asyncio.wait([ready, wait], return_when="FIRST_COMPLETED")
    if stopping.is_set():
        ready.cancel()
        return Lives()
    await ready
    token = mint(secret, "demo", "viewer", 86_400, time.time())
    base = f"ws://127.0.0.1:{port}/api/v1/ws"
    lives = Lives()
    print("Watching live-jobs. Ctrl-C ends the demo.", flush=True)
    shows = [
        asyncio.create_task(show_jobs(f"{base}/live-jobs?token={token}", lives)),
        asyncio.create_task(show_metrics(f"{base}/metrics/stream?interval=5&token={token}")),
    ]
    await asyncio.wait([wait, *shows], timeout=seconds or None, return_when="FIRST_COMPLETED")
    for task in (wait, *shows):
        task.cancel()
    ends = await asyncio.gather(*shows, return_exceptions=True)
    if any(isinstance(end, Exception) for end in ends):
        raise SystemExit("the server went away")
    return lives


def hear_signals() -> tuple[asyncio.Event, asyncio.Task[bool]]:
    """From the first instant: a server was started, and must be stopped."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping, asyncio.create_task(stopping.wait())


def stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--robots", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleetcast-demo-") as folder:
        return show(given, folder)


def show(given: argparse.Namespace, folder: str) -> int:
    port, secret = given.port or free_port(), secrets.token_hex(32)
    server = start(given.robots, port, secret, folder)
    try:
        lives = asyncio.run(watch(port, secret, given.seconds, server))
    except KeyboardInterrupt:
        return 130
    finally:
        stop(server)
    print(f"{lives.completed} jobs completed, {lives.failed} failed, {len(lives.disordered)} out of order")
    for line in lives.disordered:
        print(f"  {line}")
    return 1 if lives.disordered or not lives.completed else 0


if __name__ == "__main__":
    sys.exit(main())
