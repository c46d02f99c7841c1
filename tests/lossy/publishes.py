"""What rooms tell broadcasters comes once and in order though their calls are lost; so do metrics.

`python -m lossy.publishes ADDRESS NAMESPACE LOSS WAY`: the first calls of each room's process are lost.
"""

from __future__ import annotations

import asyncio
import sys

import ray

from actors.client import FleetClient
from actors.supervisor import connect
from fleet.events import LIVE_JOBS, METRICS, QUEUE_METRICS, ROBOT_STATUS
from fleet.messages import Beat, JobSpec, RegisterRobot, RobotSpec, Submit
from lossy.faults import LOSSES, WAYS, Loss, Way, losing
from lossy.fleet import LIMITS, FaultyRooms, epoch_of

LOST = 3
COUNT = 50


async def follow(fleet: FleetClient, feed: str, last: str) -> list[str]:
    """All events from the first one on, until one that holds `last`."""
    epoch = await epoch_of(fleet, feed)
    told: list[str] = []
    while not told or last not in told[-1]:
        page = await fleet.read(feed, epoch, len(told), 1_000)
        assert page.recovered, page
        told += [event.decode() for event in page.events]
    return told


async def check(fleet: FleetClient) -> None:
    for number in range(COUNT):
        await fleet.execute(Submit([f"job{number}."], [JobSpec(name="n")]))
        await fleet.administer(RegisterRobot(RobotSpec(robot_id=f"robot{number}.")))
        await fleet.heartbeat(Beat(f"robot{number}.", cpu_percent=float(number)), [])
    last = COUNT - 1
    jobs = await follow(fleet, LIVE_JOBS, f"job{last}.")
    assert [f"job{n}." in told for n, told in enumerate(jobs)] == [True] * COUNT, jobs
    robots = await follow(fleet, ROBOT_STATUS, f'"cpu_percent":{float(last)}')
    assert [f"robot{n // 2}." in told for n, told in enumerate(robots)] == [True] * 2 * COUNT, robots
    depths = await follow(fleet, QUEUE_METRICS, f'"depth":{COUNT}')
    numbers = [int(told.split('"depth":')[1].split(",")[0]) for told in depths]
    assert numbers == sorted(set(numbers)), numbers
    while (await fleet.read(METRICS, "", 0, 0)).current is None:
        pass


async def main(address: str, namespace: str, loss: Loss, way: Way) -> None:
    assert loss in LOSSES
    assert way in WAYS
    connect(address, namespace, None)
    supervisor = FaultyRooms(namespace, LIMITS, environment=losing(loss, LOST, way))
    fleet = await asyncio.to_thread(supervisor.client)
    async with asyncio.timeout(60):
        await check(fleet)
    await fleet.close()
    supervisor.stop()
    ray.shutdown()
    print("told once")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))  # type: ignore[arg-type]
