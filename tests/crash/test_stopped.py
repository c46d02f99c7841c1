"""The job store is stopped, not killed, for longer than every lease."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec
import pytest
from crash.world import LIMITS, World

from actors.client import FleetClient
from fleet.job import JobEvent
from fleet.limits import MS
from fleet.messages import Beat, Granted, JobSpec, JobToken, RegisterRobot, Report, RobotSpec, Submit

# Longer than one step of the store's clock, which counts at most that much of the time in which it was away.
STOPPABLE = msgspec.structs.replace(LIMITS, min_lease_ms=1_500)
ROBOTS = [f"s{number}" for number in range(20)]


class Holders:
    """Robots that hold one job each and beat."""

    def __init__(self, fleet: FleetClient) -> None:
        self._fleet = fleet
        self.grants: dict[str, Granted] = {}

    async def take(self) -> None:
        names = [f"held-{robot}" for robot in ROBOTS]
        await self._fleet.execute(Submit(names, [JobSpec(name="weld", max_attempts=1)] * len(names)))
        for robot in ROBOTS:
            await self._fleet.administer(RegisterRobot(RobotSpec(robot_id=robot)))
            [grant] = (await self._fleet.claim(robot, "q", 1, 10_000)).grants
            await self._fleet.execute(Report(JobEvent.START, grant.job.job_id, robot, grant.token))
            self.grants[robot] = grant

    async def beat(self) -> list[str]:
        """One of each; the jobs that they are told to stop."""
        answers = await asyncio.gather(*(self._beat(robot, grant) for robot, grant in self.grants.items()))
        return [job_id for answer in answers for job_id in answer.cancel]

    def _beat(self, robot: str, grant: Granted) -> asyncio.Future[object]:
        jobs = [JobToken(grant.job.job_id, grant.token)]
        return self._fleet.heartbeat(Beat(robot, "busy", job_ids=[grant.job.job_id]), jobs)

    async def happened(self) -> set[str]:
        histories = [await self._fleet.history(grant.job.job_id) for grant in self.grants.values()]
        return {line.event for history in histories for line in history}


@pytest.mark.system
async def test_no_lease_ends_while_the_job_store_is_stopped_and_all_do_when_robots_are_silent(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, f"sqlite:{tmp_path}", seed=1, limits=STOPPABLE)
    async with world.inhabited(robots=0, producers=0) as fleet:
        world.begin()
        holders = Holders(fleet)
        await holders.take()
        world.signal(signal.SIGSTOP)
        beating = asyncio.create_task(holders.beat())
        await asyncio.sleep(3 * STOPPABLE.lease_ms / 1_000)
        assert not beating.done()
        world.signal(signal.SIGCONT)
        assert await beating == []
        assert await holders.beat() == []
        assert await holders.happened() == {"submit", "claim", "start"}
        until = asyncio.get_running_loop().time() + STOPPABLE.lease_ms * MS / 1e9 + 10
        while "lease_expired" not in await holders.happened():
            assert asyncio.get_running_loop().time() < until
