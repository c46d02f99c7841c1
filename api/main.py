"""Settings to uvicorn: one door, served until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from api.app import make_app
from api.door import Door
from api.http_protocol import http_protocol
from api.ports import Fleet
from api.settings import Settings
from api.websocket_protocol import WATCH_MAX_BYTES, FleetSocket, socket_protocol
from fleet.errors import Unavailable

log = logging.getLogger("fleetcast.server")

DRAIN_BATCH = 500
GRACE_S = 10


class Server(uvicorn.Server):
    """Leaves signals alone: Ray and uvicorn both take them, so `fleetcast.py` owns them for both. It ends
    when it is told to, not at the next tenth of a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self.told.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # every second: it dates the answers
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.told.wait()

    async def shutdown(self, sockets: Any = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(0.005)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _say_goodbye(socket: FleetSocket) -> None:
    try:
        socket.shutdown()
    except Exception:
        log.exception("a socket could not be closed in good order")
        socket.abort()  # it must not keep the others from hearing


class DoorServer:
    def __init__(self, fleet: Fleet, settings: Settings, version: str = "") -> None:
        app = make_app(fleet, settings, version)
        self.door: Door = app.state.door
        self._server = Server(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=http_protocol(settings.headers_timeout_s, self.door.connections),
                ws=socket_protocol(self.door.connections),
                ws_max_size=WATCH_MAX_BYTES,
                ws_ping_interval=None,  # the door pings all sockets by one timer
                ws_per_message_deflate=False,
                log_level="warning",
                access_log=False,
                server_header=False,
                # A header may name the peer only if it comes from a proxy that the settings name.
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies,
                lifespan="on",
                timeout_graceful_shutdown=GRACE_S,
            )
        )

    async def run(self, on_started: Callable[[int], None]) -> None:
        """Serves until `stop`; `on_started` gets the port that it really has."""
        serving = asyncio.get_running_loop().create_task(self._server.serve())
        while not self._server.started:
            done, _ = await asyncio.wait([serving], timeout=0.02)
            if done:
                await serving
                if not self._server.told.is_set():
                    raise Unavailable("the server did not start: see its log")
                return
        sockets = self._server.servers[0].sockets
        if sockets:  # else it was told to stop while it started
            on_started(sockets[0].getsockname()[1])
        await serving

    async def drain(self) -> None:
        """Readiness first, then 1001 to every socket, in jittered batches so that they do not all come
        back at once."""
        self.door.drain()
        sockets = [c for c in self._server.server_state.connections if isinstance(c, FleetSocket)]
        random.shuffle(sockets)
        for start in range(0, len(sockets), DRAIN_BATCH):
            for socket in sockets[start : start + DRAIN_BATCH]:
                _say_goodbye(socket)
            if start + DRAIN_BATCH < len(sockets):
                await asyncio.sleep(random.uniform(0.05, 0.15))

    def stop(self) -> None:
        self._server.stop()
