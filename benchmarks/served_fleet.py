"""`fleetcast serve` for a benchmark: in processes of its own, with its actor calls counted."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import msgspec
from counted_fleet import FOLDER
from processes import free_port

from api.auth import mint


class Served(msgspec.Struct, frozen=True):
    """`pid` is the door's, `calls` the folder where the processes count."""

    port: int
    token: str
    pid: int
    calls: Path


@contextmanager
def served_fleet(store: str = "") -> Iterator[Served]:
    """Ready. With the PostgreSQL at `store`, else with files in a folder of its own."""
    secret, port = secrets.token_hex(32), free_port()
    token = mint(secret, "bench", "admin", 3_600, time.time())
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as data:
        program = str(Path(__file__).with_name("counted_fleet.py"))
        command = [sys.executable, program, "serve", "--port", str(port)]
        place = {"FLEETCAST_STORE": store} if store else {"FLEETCAST_DATA_DIR": data}
        environment = {**os.environ, "JWT_SECRET_KEY": secret, FOLDER: folder, **place}
        server = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            _wait_ready(port, server)
            yield Served(port, token, server.pid, Path(folder))
        finally:
            _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)  # Ray's processes too
        server.wait()


def _wait_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/api/v1/health/ready").status_code == 200:
                return
        if server.poll() is not None:
            raise SystemExit("the server ended")
        time.sleep(0.2)
    raise SystemExit("the server was not ready")
