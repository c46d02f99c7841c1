"""What one ingress process holds, and hands to its routers."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from api.auth import Authenticator, Principal
from api.hub import Hub
from api.metrics_wheel import MetricsWheel
from api.ports import Fleet
from api.settings import Settings
from api.websocket_protocol import FleetSocket

if TYPE_CHECKING:
    from api.routers.robot_socket import RobotSession


class Door:
    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self.fleet = fleet
        self.settings = settings
        self.auth = Authenticator(settings)
        self.hub = Hub(fleet, settings)
        self.wheel = MetricsWheel(self.hub)
        self.expiry = Expiry()
        self.sessions: dict[str, RobotSession] = {}
        self.ready = False

    async def start(self) -> None:
        self.fleet.on_cancel(self._cancel)
        await self.hub.start()
        self.wheel.start()
        self.expiry.start()
        self.ready = True

    async def stop(self) -> None:
        self.ready = False
        await self.expiry.stop()
        await self.wheel.stop()
        await self.hub.stop()

    def principal(self, connection: HTTPConnection) -> Principal:
        """From `Authorization: Bearer`, `X-Api-Key` or `?token=`. Raises Unauthenticated."""
        scheme, _, bearer = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and bearer:
            return self.auth.principal(bearer.strip())
        token = connection.headers.get("x-api-key") or connection.query_params.get("token")
        return self.auth.principal(token)

    def _cancel(self, robot_id: str, job_id: str) -> None:
        session = self.sessions.get(robot_id)
        if session is not None:
            session.cancel(job_id)


class Expiry:
    """Closes sockets whose token ran out, within a quarter of a second: one timer for all."""

    PERIOD_S = 0.25

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, FleetSocket]] = []
        self._tie = itertools.count()
        self._live: set[FleetSocket] = set()
        self._task: asyncio.Task[None] | None = None

    def watch(self, socket: FleetSocket, principal: Principal) -> None:
        if principal.expires_at is not None:
            self._live.add(socket)
            heapq.heappush(self._heap, (principal.expires_at, next(self._tie), socket))

    def forget(self, socket: FleetSocket) -> None:
        """Entries of closed sockets go in bulk, once they are most of the heap."""
        self._live.discard(socket)
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._live):
            self._heap = [entry for entry in self._heap if entry[2] in self._live]
            heapq.heapify(self._heap)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            now_s = time.time()
            while self._heap and self._heap[0][0] <= now_s:
                socket = heapq.heappop(self._heap)[2]
                if socket in self._live:
                    socket.close_with(4001, "token expired")
            await asyncio.sleep(self.PERIOD_S)
