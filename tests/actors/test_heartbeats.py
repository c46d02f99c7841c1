"""Heartbeats that name jobs: two rooms hear of them, and neither waits for the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import quick_limits

from actors.heartbeats import Heartbeats
from fleet.errors import Unavailable
from fleet.messages import Beat, BeatReply, Beats, Command, HeartbeatAnswer, JobToken

LIMITS = quick_limits()
JOBS = [JobToken("j", 7)]


class Rooms:
    """Both, each of which may be away until it is told to come back."""

    def __init__(self) -> None:
        self.reply = BeatReply(400, lease_ms=LIMITS.lease_ms)
        self.beats: asyncio.Queue[Beat] = asyncio.Queue()
        self.leases: asyncio.Queue[Beats] = asyncio.Queue()
        self.registry = asyncio.Event()
        self.job_store = asyncio.Event()
        self.failure: Exception | None = None
        self.heartbeats_of_door = Heartbeats(self, self, LIMITS)

    async def heartbeats(self, beats: Sequence[Beat]) -> list[BeatReply]:
        for beat in beats:
            self.beats.put_nowait(beat)
        await self.registry.wait()
        if self.failure is not None:
            raise self.failure
        return [self.reply for _ in beats]

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        for command in commands:
            assert isinstance(command, Beats)
            self.leases.put_nowait(command)
        await self.job_store.wait()
        return [["stop"] for _ in commands]

    def beat(self, jobs: list[JobToken]) -> asyncio.Future[HeartbeatAnswer]:
        return self.heartbeats_of_door.put(Beat("r"), jobs)


async def test_each_room_hears_at_once_though_the_other_is_away() -> None:
    rooms = Rooms()
    answer = rooms.beat(JOBS)
    assert await rooms.leases.get() == Beats("r", JOBS, LIMITS.lease_ms)
    assert await rooms.beats.get() == Beat("r")
    assert not answer.done()
    rooms.registry.set()
    rooms.job_store.set()
    assert await answer == HeartbeatAnswer(400, False, ["stop"])


async def test_a_store_that_is_away_keeps_no_robot_without_jobs_waiting() -> None:
    rooms = Rooms()
    rooms.registry.set()
    held_up = rooms.beat(JOBS)
    assert await rooms.beat([]) == HeartbeatAnswer(400, False, [])
    assert not held_up.done()
    await rooms.heartbeats_of_door.close()
    with pytest.raises(Unavailable):
        await held_up


async def test_leases_are_made_longer_before_a_robot_hears_that_it_may_beat_more_slowly() -> None:
    rooms = Rooms()
    longer = 10 * LIMITS.lease_ms
    rooms.reply = BeatReply(40_000, lease_ms=longer)
    rooms.registry.set()
    rooms.job_store.set()
    assert (await rooms.beat(JOBS)).next_heartbeat_ms == 40_000
    assert [rooms.leases.get_nowait().lease_ms for _ in range(2)] == [LIMITS.lease_ms, longer]
    await rooms.beat(JOBS)
    assert [rooms.leases.get_nowait().lease_ms for _ in range(rooms.leases.qsize())] == [longer]
    rooms.reply = BeatReply(400, lease_ms=LIMITS.lease_ms)
    await rooms.beat([])
    await rooms.beat(JOBS)
    assert rooms.leases.get_nowait().lease_ms == LIMITS.lease_ms


async def test_a_registry_that_fails_is_told_and_the_lease_holds_all_the_same() -> None:
    rooms = Rooms()
    rooms.failure = Unavailable("away")
    rooms.registry.set()
    rooms.job_store.set()
    with pytest.raises(Unavailable, match="away"):
        await rooms.beat(JOBS)
    assert rooms.leases.get_nowait().jobs == JOBS


async def test_a_robot_that_is_refused_is_told_so_and_of_no_job() -> None:
    rooms = Rooms()
    rooms.reply = BeatReply(refused="superseded")
    rooms.registry.set()
    rooms.job_store.set()
    assert await rooms.beat(JOBS) == HeartbeatAnswer(0, False, [], "superseded")
