"""The same rooms without Ray, in one process and event loop: for tests and for trying things out."""

from __future__ import annotations

import asyncio

from actors.broadcaster import Broadcaster, MetricsBroadcaster
from actors.client import FleetClient, Rooms, Snapshot
from actors.job_store import JobStoreRoom
from actors.registry import RegistryRoom
from actors.stores import MEMORY
from fleet.events import FEEDS, KEYS, LIVE_JOBS, METRICS, QUEUE_METRICS, ROBOT_STATUS
from fleet.limits import Limits


def local_rooms(limits: Limits, version: str = "", store: str = MEMORY) -> Rooms:
    """Needs a running event loop."""
    feeds = {name: Broadcaster(limits) for name in FEEDS if name != METRICS}
    job_store = JobStoreRoom(limits, feeds[LIVE_JOBS], feeds[QUEUE_METRICS], store)
    registry = RegistryRoom(limits, feeds[ROBOT_STATUS], feeds[KEYS], store)
    metrics = MetricsBroadcaster(limits, Snapshot(job_store, registry, version))
    return Rooms(job_store, registry, {**feeds, METRICS: metrics})


class LocalFleet(FleetClient):
    """A FleetClient whose rooms are plain objects."""

    def __init__(self, limits: Limits, version: str = "", store: str = MEMORY) -> None:
        self.rooms = local_rooms(limits, version, store)
        super().__init__(self.rooms, limits, version)

    async def close(self) -> None:
        await super().close()
        metrics = self.rooms.broadcasters[METRICS]
        runs = [metrics._run] if isinstance(metrics, MetricsBroadcaster) else []
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        await self.rooms.job_store.close()
        await self.rooms.registry.close()
