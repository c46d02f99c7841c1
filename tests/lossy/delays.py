"""Robots that beat in time stay online though each call takes up to half a second longer.

`python -m lossy.delays ADDRESS NAMESPACE`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from itertools import pairwise

import msgspec
import ray

from actors.client import FleetClient
from actors.supervisor import connect
from fleet.events import ROBOT_STATUS
from fleet.messages import Beat, RegisterRobot, RobotSpec
from lossy.faults import delaying
from lossy.fleet import LIMITS, FaultyRooms, epoch_of

DELAY_MS = 500
BEAT_S = 1.0
ROBOTS = 50
BEATS = 12


async def robot(fleet: FleetClient, robot_id: str, wait_s: float) -> None:
    await fleet.administer(RegisterRobot(RobotSpec(robot_id=robot_id)))
    await asyncio.sleep(wait_s)
    for _ in range(BEATS):
        answer = fleet.heartbeat(Beat(robot_id), [])
        await asyncio.sleep(BEAT_S)
        await answer


async def pulses(fleet: FleetClient) -> list[float]:
    """How long the job store takes to answer."""
    times = [time.monotonic()]
    for _ in range(20):
        await fleet._rooms.job_store.pulse()
        times.append(time.monotonic())
    return [after - before for before, after in pairwise(times)]


async def main(address: str, namespace: str) -> None:
    connect(address, namespace, None)
    limits = msgspec.structs.replace(LIMITS, heartbeat_interval_ms=int(BEAT_S * 1_000))
    supervisor = FaultyRooms(namespace, limits, environment=delaying(DELAY_MS))
    fleet = await asyncio.to_thread(supervisor.client)
    epoch = await epoch_of(fleet, ROBOT_STATUS)
    robots = [robot(fleet, f"robot{n}", n * BEAT_S / ROBOTS) for n in range(ROBOTS)]
    times, _ = await asyncio.gather(pulses(fleet), asyncio.gather(*robots))
    assert sum(times) / len(times) > DELAY_MS / 4_000, f"no call was delayed: {times}"
    events: list[bytes] = []
    while len(events) < ROBOTS * (BEATS + 1):
        page = await fleet.read(ROBOT_STATUS, epoch, len(events), 1_000)
        assert page.recovered
        events += page.events
    offline = [event for event in events if b"offline" in event]
    assert offline == [], offline
    await fleet.close()
    supervisor.stop()
    ray.shutdown()
    print("nobody is offline")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
