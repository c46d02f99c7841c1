"""RFC 6455 as Autobahn's fuzzing client tests it, on a server that echoes through our protocol class.

The client runs under Python 2.7 only: `make test-autobahn PYTHON2=...` makes its environment.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from api.main import Server
from api.websocket_protocol import EXTENSION, FleetSocket, text_frame

pytestmark = pytest.mark.autobahn
GROUPS = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
# `addsitedir`, since its packages share a namespace that a plain path would not join.
RUN = """
import os, site
site.addsitedir(os.environ["AUTOBAHN"])
from autobahntestsuite import wstest
wstest.run()
"""
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


class Echo:
    """Says what it hears, as a watcher's or a robot's listener would."""

    def __init__(self, socket: FleetSocket) -> None:
        self._socket = socket

    def on_text(self, data: bytes) -> None:
        self._socket.write(text_frame(data))

    def on_binary(self, data: bytes) -> None:
        self._socket.write(b"\x82" + text_frame(data)[1:])

    def on_control(self) -> None: ...

    def on_writable(self) -> None: ...

    def on_end(self) -> None: ...


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    socket: FleetSocket = scope["extensions"][EXTENSION]
    socket.listener = Echo(socket)


async def fuzz(port: int, folder: Path) -> dict[str, Any]:
    """The client's verdicts, by case."""
    spec = {
        "outdir": str(folder),
        "servers": [{"agent": "fleetcast", "url": f"ws://127.0.0.1:{port}"}],
        "cases": GROUPS,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    client = await asyncio.create_subprocess_exec(
        os.environ["PYTHON2"],
        *("-c", RUN, "-m", "fuzzingclient", "-s", str(folder / "spec.json")),
        cwd=folder,
    )
    try:
        assert await asyncio.wait_for(client.wait(), 800) == 0
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    verdicts: dict[str, Any] = json.loads((folder / "index.json").read_text())["fleetcast"]
    return verdicts


@pytest.mark.timeout(900)
async def test_no_case_of_the_fuzzing_client_fails(tmp_path: Path) -> None:
    config = uvicorn.Config(
        echo, port=0, ws=FleetSocket, ws_per_message_deflate=False, lifespan="off", log_level="warning"
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        verdicts = await fuzz(server.servers[0].sockets[0].getsockname()[1], tmp_path)
    finally:
        server.stop()
        await serving
    bad = {
        case: verdict
        for case, verdict in verdicts.items()
        if verdict["behavior"] not in GOOD or verdict["behaviorClose"] not in GOOD
    }
    assert not bad
    assert len(verdicts) > 240
    print(Counter(verdict["behavior"] for verdict in verdicts.values()))
