"""The control of the heartbeat benchmark: the same door, robots and watchers with an in-process list in place
of the fleet. No Ray, no registry, no validation, no auth."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from multiprocessing.connection import Connection

import uvicorn
import uvloop
from fastapi import FastAPI, WebSocket
from processes import heard, raise_file_limit

from api.hub import FeedHub, Hub
from api.main import Server
from api.settings import load
from api.websocket_protocol import EXTENSION, FleetSocket
from fleet.events import ROBOT_STATUS, RobotStatusChanged, encode

WELCOME = b"\x81\x02{}"


class Robot:
    """A robot's socket: every beat is an event at once."""

    def __init__(self, robot_id: str, feed: FeedHub) -> None:
        self.robot_id = robot_id
        self.feed = feed

    def on_text(self, data: bytes) -> None:
        beat = json.loads(data)
        if beat["type"] == "heartbeat":
            fields = (self.robot_id, beat["status"], beat["cpu_percent"], beat["memory_mb"], "")
            self.feed.push([encode(RobotStatusChanged(*fields))])

    def on_binary(self, data: bytes) -> None: ...

    def on_control(self) -> None: ...

    def on_writable(self) -> None: ...

    def on_end(self) -> None: ...


def make_app(feed: FeedHub) -> FastAPI:
    app = FastAPI()

    @app.websocket("/watch")
    async def watching(websocket: WebSocket) -> None:
        await websocket.accept()
        feed.add(websocket.scope["extensions"][EXTENSION])

    @app.websocket("/ws/robot/{robot_id}")
    async def robot(websocket: WebSocket, robot_id: str) -> None:
        await websocket.accept()
        websocket.scope["extensions"][EXTENSION].listener = Robot(robot_id, feed)
        websocket.scope["extensions"][EXTENSION].write(WELCOME)

    return app


async def run(pipe: Connection) -> None:
    feed = Hub(None, load(jwt_dev_mode=True)).feeds[ROBOT_STATUS]  # type: ignore[arg-type]
    config = uvicorn.Config(
        make_app(feed), port=0, ws=FleetSocket, ws_per_message_deflate=False, log_level="error"
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    pipe.send(server.servers[0].sockets[0].getsockname()[1])
    with suppress(EOFError):
        await heard(pipe)
    server.stop()
    await serving


def serve_control(pipe: Connection) -> None:
    """The process: says its port, ends when the other side hangs up."""
    raise_file_limit()
    with suppress(KeyboardInterrupt):
        uvloop.run(run(pipe))
