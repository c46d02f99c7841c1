"""What one ingress process holds, and hands to its routers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from api.admission import Admission, unbounded_peers
from api.auth import MISSING, Authenticator, Principal, Unauthenticated
from api.background import Background
from api.callers import Callers
from api.connection_table import ConnectionTable, spare_descriptors
from api.credentials import LiveCredentials
from api.hub import Hub
from api.jwks import KeySet
from api.keepalive import Keepalive
from api.key_ring import KeyRing
from api.metrics_wheel import MetricsWheel
from api.occupancy import OccupancyExchange
from api.ports import Fleet
from api.settings import Settings, is_loopback
from api.websocket_protocol import EXTENSION, FleetSocket
from fleet.errors import Unavailable

if TYPE_CHECKING:
    from api.robot_session import RobotSession

State = Literal["ready", "draining", "no_token_keys", "fleet_down", "fleet_crash_loop"]


FLEET_STATES: dict[str, State] = {"ok": "ready", "down": "fleet_down", "crash_loop": "fleet_crash_loop"}


class GoingAway(Unavailable):
    """This door is being closed."""


class Door:
    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self.fleet = fleet
        self.settings = settings
        self.connections = ConnectionTable(
            spare_descriptors(), settings.max_sockets_per_address, unbounded_peers(settings)
        )
        self.admission = Admission(settings)
        self.occupancy = OccupancyExchange(fleet, self.admission)
        self.keepalive = Keepalive(settings.ping_interval_s, settings.ping_timeout_s)
        self.credentials = LiveCredentials()
        self.keys = KeyRing(self.credentials.revoke, self.credentials.shorten)
        self.key_set = _key_set(settings)
        self.auth = Authenticator(settings, lambda secret: self.keys.find(secret, time.time()), self.key_set)
        self.callers = Callers(settings)
        self.hub = Hub(fleet, settings)
        self.wheel = MetricsWheel(self.hub)
        self.sessions: dict[str, RobotSession] = {}
        self._background = Background()
        self.serving = False
        self.closing: asyncio.Future[None] | None = None  # resolved once the server goes away

    async def start(self) -> None:
        self.closing = asyncio.get_running_loop().create_future()
        self.fleet.on_cancel(self._cancel)
        await self.hub.start()
        self._background.start(self.fleet.watch_rooms)
        self.wheel.start()
        self.keepalive.start()
        self.occupancy.start()
        self.credentials.start()
        self.keys.start(self.fleet)
        if self.key_set is not None:
            self.key_set.start()
        await self.keys.ready.wait()
        self.serving = True

    @property
    def state(self) -> State:
        """Without the issuer's keys the door serves robots with API keys only, and is not ready; without the
        fleet it keeps its sockets and answers 503."""
        if not self.serving:
            return "draining"
        if self.key_set is not None and not self.key_set.ready:
            return "no_token_keys"
        return FLEET_STATES[self.fleet.state]

    def drain(self) -> None:
        """Readiness first; who waits for work over HTTP is sent away without."""
        self.serving = False
        if self.closing is not None and not self.closing.done():
            self.closing.set_result(None)

    async def stop(self) -> None:
        self.drain()
        if self.key_set is not None:
            await self.key_set.stop()
        await self.keys.stop()
        await self.credentials.stop()
        await self.keepalive.stop()
        await self.occupancy.stop()
        await self.wheel.stop()
        await self._background.stop()
        await self.hub.stop()

    async def principal(self, connection: HTTPConnection) -> Principal:
        """Raises as `_principal`; over HTTP also TooMany (sockets have limits of their own)."""
        if connection.scope["type"] != "http":
            return await self._principal(connection)
        try:
            principal = await self._principal(connection)
        except Unauthenticated:
            self.callers.refuse(connection)
            raise
        self.callers.admit(principal)
        return principal

    async def _principal(self, connection: HTTPConnection) -> Principal:
        """Waits until the key of its token is here, if it is to come. Nothing is awaited after the look
        itself. Raises Unauthenticated, or Unavailable while the keys to check tokens with are not here."""
        token = _token(connection)
        await self.auth.prepare(token)
        if not token and not is_loopback(connection.url.hostname or ""):
            # Not even in dev mode: a web page may have its own name resolved to this machine.
            raise Unauthenticated(MISSING)
        return self.auth.principal(token)

    def knock(self, websocket: WebSocket) -> None:
        """Raises TooMany, or GoingAway: who was just told 1001 must not come back here."""
        if not self.serving:
            raise GoingAway("this server goes away: connect to another", "draining")
        self.admission.knock(self.admission.address_of(websocket), time.monotonic())

    def let_in(self, websocket: WebSocket, principal: Principal) -> FleetSocket:
        """Counted, pinged, and closed when what it was opened with ends. Raises TooMany. No await since the
        look at its credential: a revocation finds the socket."""
        socket: FleetSocket = websocket.scope["extensions"][EXTENSION]
        self.admission.enter(socket, principal, self.admission.address_of(websocket))
        self.credentials.watch(socket, principal)
        self.keepalive.add(socket)
        if socket.disconnected:  # while its token was looked at
            self._let_out(socket)
        socket.on_gone = self._let_out
        return socket

    def _let_out(self, socket: FleetSocket) -> None:
        self.admission.leave(socket)
        self.credentials.forget(socket)
        self.keepalive.remove(socket)

    def _cancel(self, robot_id: str, job_id: str) -> None:
        session = self.sessions.get(robot_id)
        if session is not None:
            session.cancel(job_id)


def _token(connection: HTTPConnection) -> str | None:
    """From `Authorization: Bearer`, `X-Api-Key` or `?token=`."""
    scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    return connection.headers.get("x-api-key") or connection.query_params.get("token")


def _key_set(settings: Settings) -> KeySet | None:
    if settings.jwt_jwks_url is None:
        return None
    return KeySet(
        settings.jwt_jwks_url,
        settings.jwt_algorithm,
        settings.jwt_jwks_refresh_s,
        settings.jwt_jwks_window_s,
        settings.jwt_jwks_timeout_s,
    )
