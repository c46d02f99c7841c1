"""A server for one load test: `fleetcast serve` in a process of its own, with files that go with it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import msgspec

from fleet.errors import Unavailable

START_S = 120.0
END_S = 60.0


class OwnServer(msgspec.Struct, frozen=True):
    url: str
    secret: str


@contextmanager
def own_server(ray_address: str, namespace: str, heartbeat_ms: int) -> Iterator[OwnServer]:
    """Ready. Its actors live in the Ray at `ray_address` and stay there when it ends. Raises Unavailable with
    the server's own words if it does not start."""
    secret, port = secrets.token_hex(32), _free_port()
    with tempfile.TemporaryDirectory(prefix="fleetcast-load-") as folder:
        log = Path(folder) / "serve.txt"
        command = [sys.executable, "-m", "fleetcast", "serve", "--port", str(port), "--address", ray_address]
        with log.open("wb") as words:
            server = subprocess.Popen(
                command,
                env=_environment(secret, namespace, folder, heartbeat_ms),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the load test, which then ends its server
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, server, log)
            yield OwnServer(url, secret)
        finally:
            _end(server)


def _environment(secret: str, namespace: str, folder: str, heartbeat_ms: int) -> dict[str, str]:
    """Ours, without what would let it serve somebody else's fleet; limits may be set."""
    foreign = ("JWT_", "FLEETCAST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    limits = {"heartbeat_interval_ms": heartbeat_ms} | json.loads(os.environ.get("FLEETCAST_LIMITS", "{}"))
    return kept | {
        "JWT_SECRET_KEY": secret,
        "FLEETCAST_NAMESPACE": namespace,
        "FLEETCAST_DATA_DIR": folder,
        "FLEETCAST_LIMITS": json.dumps(limits),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if server.poll() is not None:
            words = log.read_text(errors="replace").strip().splitlines()
            raise Unavailable(f"the server did not start: {words[-1] if words else server.returncode}")
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/api/v1/health/ready", timeout=5.0).status_code == 200:
                return
        time.sleep(0.1)
    raise Unavailable(f"the server was not ready after {START_S:.0f} s")


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(END_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
