"""What one ingress process holds, and hands to its routers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from api.admission import Admission
from api.auth import MISSING, Authenticator, Principal, Unauthenticated
from api.credentials import LiveCredentials
from api.hub import Hub
from api.keepalive import Keepalive
from api.key_ring import KeyRing
from api.metrics_wheel import MetricsWheel
from api.ports import Fleet
from api.settings import Settings, is_loopback
from api.websocket_protocol import EXTENSION, FleetSocket

if TYPE_CHECKING:
    from api.routers.robot_socket import RobotSession


class Door:
    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self.fleet = fleet
        self.settings = settings
        self.admission = Admission(settings)
        self.keepalive = Keepalive(settings.ping_interval_s, settings.ping_timeout_s)
        self.credentials = LiveCredentials()
        self.keys = KeyRing(self.credentials.revoke)
        self.auth = Authenticator(settings, lambda secret: self.keys.find(secret, time.time()))
        self.hub = Hub(fleet, settings)
        self.wheel = MetricsWheel(self.hub)
        self.sessions: dict[str, RobotSession] = {}
        self.ready = False
        self.closing: asyncio.Future[None] | None = None  # resolved once the server goes away

    async def start(self) -> None:
        self.closing = asyncio.get_running_loop().create_future()
        self.fleet.on_cancel(self._cancel)
        await self.hub.start()
        self.wheel.start()
        self.keepalive.start()
        self.credentials.start()
        self.keys.start(self.fleet)
        await self.keys.ready.wait()
        self.ready = True

    def drain(self) -> None:
        """Readiness first; who waits for work over HTTP is sent away without."""
        self.ready = False
        if self.closing is not None and not self.closing.done():
            self.closing.set_result(None)

    async def stop(self) -> None:
        self.drain()
        await self.keys.stop()
        await self.credentials.stop()
        await self.keepalive.stop()
        await self.wheel.stop()
        await self.hub.stop()

    async def principal(self, connection: HTTPConnection) -> Principal:
        """From `Authorization: Bearer`, `X-Api-Key` or `?token=`. Raises Unauthenticated."""
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and bearer:
            return self.auth.principal(bearer.strip())
        token = connection.headers.get("x-api-key") or connection.query_params.get("token")
        if not token and not is_loopback(connection.url.hostname or ""):
            # Not even in dev mode: a web page may have its own name resolved to this machine.
            raise Unauthenticated(MISSING)
        return self.auth.principal(token)

    def let_in(self, websocket: WebSocket, principal: Principal, address: str) -> FleetSocket:
        """Counted, pinged, and closed when what it was opened with ends. Raises TooMany. No await since the
        look at its credential: a revocation finds the socket."""
        socket: FleetSocket = websocket.scope["extensions"][EXTENSION]
        self.admission.enter(socket, principal, address)
        self.credentials.watch(socket, principal)
        self.keepalive.add(socket)
        if socket.disconnected:  # while its token was looked at
            self._let_out(socket)
        socket.on_end = self._let_out
        return socket

    def _let_out(self, socket: FleetSocket) -> None:
        self.admission.leave(socket)
        self.credentials.forget(socket)
        self.keepalive.remove(socket)

    def _cancel(self, robot_id: str, job_id: str) -> None:
        session = self.sessions.get(robot_id)
        if session is not None:
            session.cancel(job_id)
