"""What happens on a stream, and what happens to its history."""

from __future__ import annotations

from conftest import World

from actors.publisher import Publisher
from fleet.feed import FeedHistory


async def happen(world: World, stream: str, number: int) -> None:
    """One event more on the stream."""
    async with world.http() as http:
        if stream == "robot-status":
            await http.post("/robots/register", json={"robot_id": f"r-{number}"})
        elif stream == "queue-metrics":
            await world.fleet.announce_depth(number)
        else:
            await http.post("/jobs", json={"name": "weld"})


def begin_anew(world: World, stream: str) -> None:
    """As if the room that tells this stream had begun again, knowing nothing of what it had told."""
    rooms, limits = world.fleet.rooms, world.fleet.limits
    room, name = {
        "live-jobs": (rooms.job_store, "_events"),
        "robot-status": (rooms.registry, "_events"),
        "queue-metrics": (rooms.job_store, "_depths"),
    }[stream]
    before = getattr(room, name)
    before._run.cancel()
    publisher = Publisher(rooms.broadcasters[stream], limits, FeedHistory("another"))
    publisher.publish([], before._source._kept.current)
    setattr(room, name, publisher)
