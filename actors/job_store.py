"""Keeps every job and is the only writer of the journal.

Owns      jobs, queue, waiting claims, journal
Hears     submit, claim, start, progress, complete, fail, release, cancelled, cancel, heartbeats, tick
Says      committed events, in journal order; grants, through each door's outbox; queue depth
Survives  restart: what its journal kept
Never     awaits between deciding and recording; answers before commit
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from actors.batching import refusal_of
from actors.journal import MemoryJournal, commit
from actors.publisher import Publisher, Publishes
from fleet.events import JobStatusChanged, QueueDepthChanged, encode
from fleet.job import Job
from fleet.job_store import Announcement, Fact, JobStore
from fleet.limits import MS, SECOND, Limits
from fleet.messages import (
    Announce,
    Beats,
    Cancel,
    Claim,
    Command,
    EndClaim,
    Get,
    Held,
    JobCounts,
    Outbox,
    Report,
    Retry,
    Submit,
    Withdraw,
)
from fleet.wall_time import rfc3339

log = logging.getLogger("fleetcast.job_store")


class JobStoreRoom:
    def __init__(self, limits: Limits, live_jobs: Publishes, queue_metrics: Publishes) -> None:
        self._limits = limits
        self._core = JobStore(limits, Random())
        self._journal = MemoryJournal(self._announce)
        self._events = Publisher(live_jobs, limits)
        self._depths = Publisher(queue_metrics, limits)
        self._depth: int | None = None
        self._depth_ns = 0
        self._posted = 0
        self._began_ns = time.monotonic_ns()
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run = asyncio.get_running_loop().create_task(self._tick())

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """One reply per command, in order; a refusal is a reply. All wait for the commit."""
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        replies = [self._one(command, now_ns, wall_ns) for command in commands]
        await self._commit()
        return replies

    async def outbox(self, door: str, epoch: int, cursor: int, wait_ms: int) -> Outbox:
        """Grants for the claims that a door parked, by long poll; `epoch` and `cursor` of the last page
        confirm it."""
        until_ns = time.monotonic_ns() + wait_ms * MS
        page = self._core.outbox(door, epoch, cursor, time.monotonic_ns())
        while (page.epoch, page.cursor) == (epoch, cursor) and (
            rest_ns := until_ns - time.monotonic_ns()
        ) > 0:
            await asyncio.wait([self._changed], timeout=rest_ns / 1e9)
            page = self._core.outbox(door, epoch, cursor, time.monotonic_ns())
        await self._commit()
        return page

    async def page(
        self, status: str | None, robot_id: str | None, environment: str | None, before: int, limit: int
    ) -> tuple[list[Job], int]:
        found = self._core.page(status, robot_id, environment, before, limit)
        await self._commit()
        return found

    async def counts(self) -> JobCounts:
        now_ns = time.monotonic_ns()
        counts = self._core.counts(now_ns, time.time_ns())
        await self._commit()
        return msgspec.structs.replace(counts, up_s=(now_ns - self._began_ns) // SECOND)

    def _one(self, command: Command, now_ns: int, wall_ns: int) -> Any:
        try:
            return self._decide(command, now_ns, wall_ns)
        except Exception as error:
            return refusal_of(error)

    def _decide(self, command: Command, now_ns: int, wall_ns: int) -> Any:
        match command:
            case Report():
                return self._core.report(command, now_ns, wall_ns)
            case Beats():
                return self._core.beats(command, now_ns)
            case Claim():
                return self._core.claim(command, now_ns, wall_ns)
            case Submit():
                return self._core.submit(command, now_ns, wall_ns)
            case Retry():
                return self._core.retry(command, now_ns, wall_ns)
            case Get():
                return self._core.get(command.job_id)
            case Held():
                return self._core.held(command.robot_id)
            case EndClaim():
                return self._core.end_claim(command, now_ns)
            case Announce():
                return self._core.announce(command, wall_ns)
            case Cancel():
                return self._core.cancel(command.job_id, now_ns, wall_ns)
            case Withdraw():
                return self._core.withdraw(command)

    async def _commit(self) -> None:
        """Every reply that saw a fact waits here until that fact is safe."""
        await commit(self._journal, self._core.take_facts())
        if self._posted != self._core.posted:
            self._posted = self._core.posted
            self._changed.set_result(None)
            self._changed = asyncio.get_running_loop().create_future()

    def _announce(self, facts: Sequence[Fact | Announcement]) -> None:
        changes = [change for fact in facts if (change := _status_change(fact))]
        self._events.publish([encode(change) for change in changes])

    async def _tick(self) -> None:
        while True:
            now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            try:
                self._core.tick(now_ns, wall_ns)
            except Exception:
                log.exception("a tick failed; the next goes on")
            await self._commit()
            self._publish_depth(now_ns, wall_ns)
            await asyncio.sleep(self._limits.tick_ms / 1_000)

    def _publish_depth(self, now_ns: int, wall_ns: int) -> None:
        """On change, at most one per `depth_interval_ms`; the tick after sends what was held back. Without
        a change the state alone is told again, for a broadcaster that restarted."""
        depth = self._core.depth()
        changed = depth != self._depth
        pause_ms = self._limits.depth_interval_ms if changed else self._limits.refresh_ms
        if now_ns - self._depth_ns < pause_ms * MS:
            return
        self._depth, self._depth_ns = depth, now_ns
        event = encode(QueueDepthChanged(depth, rfc3339(wall_ns)))
        self._depths.publish([event] if changed else [], event)


def _status_change(fact: Fact | Announcement) -> JobStatusChanged | None:
    if isinstance(fact, Announcement):
        return JobStatusChanged(fact.job_id, fact.status, fact.at)
    return JobStatusChanged(fact.job.job_id, fact.job.status, fact.at) if fact.announced else None
