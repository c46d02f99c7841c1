"""A fleet on a cluster that runs, whose rooms may have faults of their own."""

from __future__ import annotations

from typing import Any

from actors.client import FleetClient, Rooms
from actors.ray_room import RayRoom
from actors.supervisor import Supervisor, connect
from fleet.limits import Limits

LIMITS = Limits(
    heartbeat_interval_ms=60_000, tick_ms=5, long_poll_ms=200, backoff_base_ms=1, occupancy_interval_ms=100
)


class FaultyRooms(Supervisor):
    """`environment` is that of the rooms' processes."""

    environment: dict[str, str] = {}

    def _make(self, name: str, role: type, args: tuple[Any, ...], **options: Any) -> Any:
        return super()._make(name, role, args, **options, runtime_env={"env_vars": self.environment})


class Silences:
    """How many calls of this process got no answer."""

    def __init__(self) -> None:
        self.count = 0
        note = RayRoom._note_silence

        def counted(room: RayRoom, error: Exception, began: float) -> None:
            self.count += 1
            note(room, error, began)

        RayRoom._note_silence = counted  # type: ignore[method-assign, assignment]


def found(address: str, namespace: str) -> Rooms:
    """From a new connection."""
    connect(address, namespace, None)
    return Supervisor(namespace, LIMITS).find()


async def epoch_of(fleet: FleetClient, feed: str) -> str:
    lineage = (await fleet.read(feed, "", 0, 0)).lineage
    assert lineage is not None
    return lineage.epoch
