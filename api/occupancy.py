"""This door's sockets told to the other doors, and theirs heard: limits hold for the fleet."""

from __future__ import annotations

import asyncio
import logging
import secrets

from api.admission import Admission
from api.background import Background
from api.ports import Fleet
from fleet.errors import FleetError
from fleet.occupancy import Occupancy

log = logging.getLogger("fleetcast.occupancy")


class OccupancyExchange:
    """One call each `occupancy_interval_ms`, however many sockets there are. When the fleet refuses, or does
    not answer for `door_timeout_ms`, this door counts its own alone."""

    def __init__(self, fleet: Fleet, admission: Admission) -> None:
        self._fleet = fleet
        self._admission = admission
        self._door = secrets.token_hex(8)
        self._most = fleet.limits.max_named_per_door
        self._interval_s = fleet.limits.occupancy_interval_ms / 1_000
        self._timeout_s = fleet.limits.door_timeout_ms / 1_000
        self._background = Background()

    def start(self) -> None:
        self._background.start(self._run)

    async def stop(self) -> None:
        """A last word, so that who comes back at another door does not find his old sockets counted there."""
        await self._background.stop()
        await self._exchange(self._interval_s)

    async def _run(self) -> None:
        while True:
            await self._exchange(self._timeout_s)
            await asyncio.sleep(self._interval_s)

    async def _exchange(self, timeout_s: float) -> None:
        """Calls may overtake each other and an older word stand last: until the next, or the door's end."""
        try:
            async with asyncio.timeout(timeout_s):
                held = self._admission.held(self._most)
                elsewhere = await self._fleet.exchange_occupancy(self._door, held)
        except (FleetError, TimeoutError) as error:
            log.warning("sockets at other doors are not heard of, and not counted: %r", error)
            elsewhere = Occupancy()
        self._admission.elsewhere = elsewhere
