"""The job store's actor without Ray: how many transitions a second it decides, commits and answers.

Lanes of robots go through the life cycle in step: a lane's claims are one call, its starts the next, its
completions the third. So each call has as many commands as a lane has robots, and as many calls are under way
as there are lanes."""

from __future__ import annotations

import asyncio
import itertools
import time
from multiprocessing.connection import Connection

import msgspec
import uvloop

from actors.job_store import JobStoreRoom
from fleet.feed import Batch, Published
from fleet.job import JobEvent
from fleet.limits import Limits
from fleet.messages import Answer, Claim, JobSpec, Report, Submit

LIST = 500  # jobs submitted at a time
TRANSITIONS = 4  # of a job: submitted, claimed, started, completed


class Drive(msgspec.Struct, frozen=True):
    """`batch` commands a call, `lanes` calls under way."""

    batch: int
    lanes: int
    seconds: float


class Quiet:
    """Takes events as a broadcaster does, and has no readers."""

    async def publish(self, batch: Batch) -> Published:
        return Published(batch.lineage.epoch, batch.first + len(batch.events))


class Driver:
    def __init__(self, room: JobStoreRoom, batch: int) -> None:
        self._room = room
        self._batch = batch
        self._ids = itertools.count()
        self._waiting = 0
        self.completed = 0

    async def lane(self, number: int, until_s: float) -> None:
        while time.monotonic() < until_s:
            if self._waiting < self._batch:
                await self._submit()
            self._waiting -= self._batch
            claims = [self._claim(f"robot-{number}-{n}") for n in range(self._batch)]
            answers: list[Answer] = await self._room.execute(claims)
            held = [(a.robot_id, grant.job.job_id, grant.token) for a in answers for grant in a.grants]
            assert len(held) == self._batch
            for event in (JobEvent.START, JobEvent.COMPLETE):
                await self._room.execute([Report(event, job, robot, token) for robot, job, token in held])
            self.completed += self._batch

    async def _submit(self) -> None:
        self._waiting += LIST
        ids = [f"job-{next(self._ids):020}" for _ in range(LIST)]
        await self._room.execute([Submit(ids, [JobSpec(name="weld")] * LIST)])

    def _claim(self, robot_id: str) -> Claim:
        return Claim("door", robot_id, str(next(self._ids)), 1, 0, [], "development", 1)


async def transitions_per_s(store: str, drive: Drive) -> float:
    room = JobStoreRoom(Limits(), Quiet(), Quiet(), store)
    driver = Driver(room, drive.batch)
    start_s = time.monotonic()
    await asyncio.gather(*(driver.lane(n, start_s + drive.seconds) for n in range(drive.lanes)))
    took_s = time.monotonic() - start_s
    await room.close()
    return driver.completed * TRANSITIONS / took_s


def drive_store(store: str, drive: Drive, pipe: Connection) -> None:
    """The process: says how many transitions a second."""
    pipe.send(uvloop.run(transitions_per_s(store, drive)))
