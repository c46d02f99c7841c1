"""The servers that the fan-out benchmark compares: one function each, all with the same small interface."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop
from fanout_pace import Event, Served, paced
from fanout_watchers import SUBJECT
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from processes import free_port, heard, raise_file_limit

from actors.local import LocalFleet
from api.main import DoorServer
from api.settings import load
from fleet.limits import Limits

PATH = "/api/v1/ws/live-jobs"


class Peer(msgspec.Struct, frozen=True):
    """`most` bounds the messages of one measurement, for servers that need seconds where others do not."""

    start: Callable[[], AbstractAsyncContextManager[Served]]
    wire: str
    most: int


def serve(name: str, pipe: Connection) -> None:
    """The process: says (port, pid), then carries out loads until the other side hangs up."""
    raise_file_limit()
    with suppress(KeyboardInterrupt):
        uvloop.run(serve_loads(PEERS[name], pipe))


async def serve_loads(peer: Peer, pipe: Connection) -> None:
    async with peer.start() as served:
        pipe.send((served.port, served.pid))
        with suppress(EOFError, ConnectionError):
            while True:
                await paced(await heard(pipe), served)
                pipe.send(None)
    os._exit(0)  # the watchers are gone: nobody is left to say goodbye to


# -- the servers


@asynccontextmanager
async def fleetcast() -> AsyncIterator[Served]:
    """The whole door over an in-process fleet: publish, feed, pump, hub, socket."""
    fleet = LocalFleet(Limits())
    server = DoorServer(fleet, load(jwt_dev_mode=True, port=0))
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(server.run(started.set_result))
    source = fleet.rooms.job_store._events

    async def send(events: list[Event]) -> None:
        source.publish([event.data for event in events])

    await asyncio.wait((serving, started), return_when="FIRST_COMPLETED")
    yield Served(started.result(), os.getpid(), send)


class ConnectionManager:
    """As in FastAPI's documentation, with the time limit per client that its users add."""

    def __init__(self) -> None:
        self.sockets: set[WebSocket] = set()

    async def hold(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.sockets.add(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            self.sockets.discard(websocket)

    async def broadcast(self, message: dict[str, Any]) -> None:
        for socket in self.sockets:
            await asyncio.wait_for(socket.send_text(json.dumps(message)), 1)


@asynccontextmanager
async def connection_manager(deflate: bool) -> AsyncIterator[Served]:
    """FastAPI on uvicorn with its defaults, of which deflate is one."""
    app, manager = FastAPI(), ConnectionManager()

    @app.websocket(PATH)
    async def watch(websocket: WebSocket) -> None:
        await manager.hold(websocket)

    async def send(events: list[Event]) -> None:
        for event in events:
            await manager.broadcast(event.fields)

    config = uvicorn.Config(app, port=0, ws_per_message_deflate=deflate, log_level="error")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    yield Served(server.servers[0].sockets[0].getsockname()[1], os.getpid(), send)


@asynccontextmanager
async def websockets_broadcast() -> AsyncIterator[Served]:
    from websockets.asyncio.server import ServerConnection, broadcast
    from websockets.asyncio.server import serve as websockets_serve

    async def hold(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def send(events: list[Event]) -> None:
        for event in events:
            broadcast(server.connections, event.text)

    async with websockets_serve(hold, "127.0.0.1", 0, compression=None) as server:
        yield Served(next(iter(server.sockets)).getsockname()[1], os.getpid(), send)


@asynccontextmanager
async def picows() -> AsyncIterator[Served]:
    from picows import WSListener, WSMsgType, WSTransport, ws_create_server

    transports: set[WSTransport] = set()

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transports.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            transports.discard(transport)

    async def send(events: list[Event]) -> None:
        for event in events:
            for transport in transports:
                transport.send(WSMsgType.TEXT, event.data)

    server = await ws_create_server(lambda request: Listener(), "127.0.0.1", 0)
    yield Served(server.sockets[0].getsockname()[1], os.getpid(), send)


@asynccontextmanager
async def granian() -> AsyncIterator[Served]:
    """RSGI, one worker. Its sends begin when they are called; awaiting them one by one afterwards is the
    cheapest of what it offers (in turn and with gather cost more)."""
    from granian.server.embed import Server

    sockets: set[Any] = set()

    async def hold(scope: Any, protocol: Any) -> None:
        socket = await protocol.accept()
        sockets.add(socket)
        while (await socket.receive()).kind != 0:
            pass
        sockets.discard(socket)
        protocol.close()

    async def send(events: list[Event]) -> None:
        for event in events:
            for sending in [socket.send_str(event.text) for socket in sockets]:
                await sending

    port = free_port()
    serving = asyncio.create_task(Server(hold, port=port, log_enabled=False).serve())
    await until_listening(port, serving)
    yield Served(port, os.getpid(), send)


async def until_listening(port: int, serving: asyncio.Task[Any]) -> None:
    while not serving.done():
        with suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.02)
    await serving


NATS_CONFIG = """
listen: "127.0.0.1:-1"
ports_file_dir: "{folder}"
websocket {{ listen: "127.0.0.1:-1", no_tls: true, compression: false }}
"""


@asynccontextmanager
async def nats() -> AsyncIterator[Served]:
    """Only nats-server's process counts; the publisher lives in this one. A burst is one write; the answer
    to the PING behind it says that the server has been through it."""
    folder = tempfile.mkdtemp()
    server = start_nats(Path(folder))
    try:
        ports = await nats_ports(Path(folder), server)
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(ports["nats"]))
        writer.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')

        async def send(events: list[Event]) -> None:
            published = [b"PUB %b %d\r\n%b\r\n" % (SUBJECT.encode(), len(e.data), e.data) for e in events]
            writer.write(b"".join(published) + b"PING\r\n")
            while (await reader.readline()) != b"PONG\r\n":
                pass

        yield Served(port_of(ports["websocket"]), server.pid, send)
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)


def start_nats(folder: Path) -> subprocess.Popen[bytes]:
    config = folder / "nats.conf"
    config.write_text(NATS_CONFIG.format(folder=folder))
    program = Path(sys.executable).with_name("nats-server")
    return subprocess.Popen([program, "-c", config, "-l", folder / "log"], stdout=subprocess.DEVNULL)


async def nats_ports(folder: Path, server: subprocess.Popen[bytes]) -> Any:
    """It writes them once it listens."""
    written = folder / f"nats-server_{server.pid}.ports"
    while server.poll() is None:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return json.loads(written.read_text())
        await asyncio.sleep(0.02)
    raise RuntimeError("nats-server ended: " + (folder / "log").read_text())


def port_of(urls: list[str]) -> int:
    return int(urls[0].rpartition(":")[2])


PEERS = {
    "fleetcast": Peer(fleetcast, "plain", 10_000_000),
    "connection manager": Peer(partial(connection_manager, True), "deflate", 50_000),
    "connection manager without deflate": Peer(partial(connection_manager, False), "plain", 50_000),
    "websockets.broadcast": Peer(websockets_broadcast, "plain", 200_000),
    "picows": Peer(picows, "plain", 200_000),
    "granian": Peer(granian, "plain", 200_000),
    "nats-server": Peer(nats, "nats", 1_000_000),
}
