"""Keeps every job and is the only writer of the journal.

Owns      jobs, queue, waiting claims, journal, and the clock of leases and timeouts
Hears     submit, claim, start, progress, complete, fail, release, cancelled, cancel, heartbeats, tick
Says      committed events, in journal order; grants, through each door's outbox; queue depth
Survives  restart: reads its journal; loses nothing that it acknowledged, voids no token, ends no lease early
Never     awaits between deciding and recording; answers before commit
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, TypeVar

import msgspec

from actors.active_clock import ActiveClock
from actors.batching import refusal_of
from actors.database import StoreRefused, StoreUnreachable
from actors.journal import Journal, commit
from actors.publisher import Publisher, Publishes
from actors.stores import MEMORY, job_tables, opened
from actors.upkeep import Upkeep
from actors.wire import Reachable
from actors.writer import Opening
from fleet.dead_letters import DeadLetterFilter, DeadLetters, Redrive, Redriven, among
from fleet.errors import Overloaded, Unavailable
from fleet.events import JobStatusChanged, QueueDepthChanged, encode
from fleet.explain import Place
from fleet.feed import MAX_FORMER, FeedHistory
from fleet.job import Job
from fleet.job_record import Announcement, Fact, HistoryEvent, JobFilter
from fleet.job_store import Change, JobStore
from fleet.kept_replies import KeptReply
from fleet.limits import MS, SECOND, Limits
from fleet.messages import (
    Announce,
    AnnounceDepth,
    Beats,
    Cancel,
    Claim,
    Command,
    EndClaim,
    Get,
    GiveBack,
    Held,
    JobCounts,
    Outbox,
    Refusal,
    Report,
    Retry,
    Submit,
    Withdraw,
)
from fleet.replies import Replies
from fleet.stream_messages import FeedState
from fleet.wall_time import rfc3339

log = logging.getLogger("fleetcast.job_store")

DAMAGED = "store_damaged"

Result = TypeVar("Result")


class JobStoreRoom(Reachable):
    def __init__(
        self,
        limits: Limits,
        live_jobs: Publishes,
        queue_metrics: Publishes,
        store: str = MEMORY,
        fleet: str = "fleetcast",
        began_ns: int | None = None,
    ) -> None:
        """`began_ns`: when the fleet began, in wall time; a restart of this actor does not change it."""
        self._limits = limits
        self._began_ns = began_ns or time.time_ns()
        self._life = secrets.token_hex(6)
        self._tables = job_tables(store, fleet, limits)
        self._core = JobStore(limits, Random())
        wall_ns = time.time_ns()
        with _resting_collector():
            opening = self._open(wall_ns)
        self._journal = Journal(self._tables, self._on_committed)
        self._events = Publisher(live_jobs, limits, self._history(opening), limits.live_jobs_interval_ms)
        self._depths = Publisher(queue_metrics, limits, FeedHistory(self._life))
        self._depths_told = Replies(limits.max_remembered)
        self._depth = self._core.depth()
        self._depths.publish([], encode(QueueDepthChanged(self._depth, rfc3339(wall_ns))))
        self._depth_ns = 0
        self._posted = 0
        loop = asyncio.get_running_loop()
        self._changed: asyncio.Future[None] = loop.create_future()
        self._run = loop.create_task(self._tick())
        self._upkeep = Upkeep(self._journal, self._tables, limits)

    def _open(self, wall_ns: int) -> Opening:
        opening, rest = opened(lambda: self._tables.open(wall_ns))
        self._clock = ActiveClock(opening.counters.clock_ns)
        self._tables.now_ns = lambda: self._clock.now_ns
        self._core.restore(rest, self._clock.now_ns, wall_ns)
        return opening

    def _history(self, opening: Opening) -> FeedHistory:
        """The live-jobs feed is the journal: its offsets are the numbers of the events."""
        former = dict(list(opening.former.items())[-MAX_FORMER:])
        return FeedHistory(opening.incarnation, former, opening.counters.number, self._tables.recent_events())

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """One reply per command, in order; a refusal is a reply. All wait for the commit."""
        self._check_backlog()
        refused = await self._recall_each(commands)
        now_ns, wall_ns = self._clock.tick(), time.time_ns()
        replies = [refused.get(i) or self._one(each, now_ns, wall_ns) for i, each in enumerate(commands)]
        await self._commit()
        return replies

    def _check_backlog(self) -> None:
        if self._journal.backlog > self._limits.max_backlog:
            raise Overloaded("the store does not keep up with what it is to write", "", 1.0)

    async def _recall_each(self, commands: Sequence[Command]) -> dict[int, Refusal]:
        """Refuses, by their place, commands that name what is damaged on the disk; the others are not their
        victims."""
        refused: dict[int, Refusal] = {}
        try:
            await self._recall(commands)
        except Unavailable as error:
            if error.code != DAMAGED:
                raise
            for index, command in enumerate(commands):
                try:
                    await self._recall([command])
                except Unavailable as own:
                    refused[index] = refusal_of(own)
            await self._recall([each for index, each in enumerate(commands) if index not in refused])
        return refused

    async def _recall(self, commands: Sequence[Command | Redrive]) -> None:
        """Replies and finished jobs that are named again come back into memory before anything is decided. A
        look at the journal lets time pass, in which others may be forgotten: so until nothing is missing."""
        replies = self._core.replies
        unanswered: set[str] = set()
        unknown: set[str] = set()
        generation = replies.generation
        while True:
            if replies.generation != generation:
                unanswered, generation = set(), replies.generation
            if missing := self._core.unanswered(commands) - unanswered:
                unanswered |= missing
                for kept in await self._read(self._tables.replies, list(missing)):
                    replies.remember(kept)
            elif forgotten := self._core.forgotten(commands) - unknown:
                unknown |= forgotten
                for record in await self._read(self._tables.find, list(forgotten)):
                    self._core.remember(record)
                    unknown.discard(record.job.job_id)
            else:
                return

    async def _read(self, look: Callable[..., Result], *args: Any) -> Result:
        """What was committed, beside the writer. Raises Unavailable."""
        try:
            return await asyncio.to_thread(look, *args) if self._tables.blocking else look(*args)
        except StoreUnreachable as error:
            log.warning("%s", error)
            raise Unavailable("the store does not answer now", "store_unreachable", 1.0) from None
        except StoreRefused as error:
            log.critical("%s", error)
            raise Unavailable("the store is damaged where this is kept", DAMAGED, 60.0) from None

    async def outbox(self, door: str, epoch: int, cursor: int, wait_ms: int) -> Outbox:
        """Grants for the claims that a door parked, by long poll; `epoch` and `cursor` of the last page
        confirm it."""
        until_ns = time.monotonic_ns() + wait_ms * MS
        page = self._core.outbox(door, epoch, cursor, self._clock.tick())
        while (page.epoch, page.cursor) == (epoch, cursor) and (
            rest_ns := until_ns - time.monotonic_ns()
        ) > 0:
            await asyncio.wait([self._changed], timeout=rest_ns / 1e9)
            page = self._core.outbox(door, epoch, cursor, self._clock.tick())
        await self._commit()
        return page

    async def redrive(self, command: Redrive) -> Redriven:
        self._check_backlog()
        found = await self._read(self._dead_letters_to, command)
        await self._recall([command])
        reply = self._core.redrive(command, found, self._clock.tick(), time.time_ns())
        await self._commit()
        return reply

    def _dead_letters_to(self, command: Redrive) -> DeadLetters:
        most, wanted = self._limits.max_redriven_bytes, command.wanted
        if wanted.job_ids is not None:
            return among(self._tables.find(wanted.job_ids), command, most)
        return self._tables.dead_letters(wanted, command.place, command.limit, most, False)

    async def dead_letters(self, wanted: DeadLetterFilter, place: int, limit: int) -> DeadLetters:
        most = self._limits.max_page_bytes
        return await self._read(self._tables.dead_letters, wanted, place, limit, most, True)

    async def place(self, job_id: str, robot_ids: Sequence[str]) -> Place:
        """Raises NotFound."""
        await self._recall([Get(job_id)])
        place = self._core.place(job_id, robot_ids, self._clock.tick(), time.time_ns())
        await self._commit()
        return place

    async def page(self, wanted: JobFilter, before: int, limit: int) -> tuple[list[Job], int]:
        if wanted.stuck:
            found = self._core.stuck_page(wanted, before, limit)
            await self._commit()
            return found
        return await self._read(self._tables.page, wanted, before, limit)

    async def history(self, job_id: str, skip: int = 0, limit: int = 1_000) -> list[HistoryEvent]:
        """Without the first `skip`; empty for a job that does not exist."""
        return await self._read(self._tables.history, job_id, skip, limit)

    async def pulse(self) -> str:
        """A name of this life of the actor."""
        return self._life

    async def state(self) -> FeedState:
        """The latest event of every live job and of those that ended last, `max_snapshot_jobs` at most."""
        found, complete = self._core.latest(self._limits.max_snapshot_jobs)
        await self._commit()
        return FeedState(
            [encode(JobStatusChanged(job.job_id, job.status, at)) for job, at in found], complete
        )

    async def counts(self) -> JobCounts:
        wall_ns = time.time_ns()
        counts = self._core.counts(self._clock.tick(), wall_ns)
        await self._commit()
        return msgspec.structs.replace(counts, up_s=max(0, wall_ns - self._began_ns) // SECOND)

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
            case AnnounceDepth():
                return self._depths_told.once(command.request_id, lambda: self._tell(command.depth, wall_ns))
            case Announce():
                return self._core.announce(command, wall_ns)
            case Cancel():
                return self._core.cancel_once(command, now_ns, wall_ns)
            case GiveBack():
                return self._core.give_back(command, now_ns, wall_ns)
            case Withdraw():
                return self._core.withdraw(command)

    async def _commit(self) -> None:
        """Every reply that saw a fact waits here until that fact is safe."""
        await commit(self._journal, self._core.take_facts())
        if self._posted != self._core.posted:
            self._posted = self._core.posted
            self._changed.set_result(None)
            self._changed = asyncio.get_running_loop().create_future()

    def _on_committed(self, committed: Sequence[Change]) -> None:
        facts = [change for change in committed if not isinstance(change, KeptReply)]
        changes = [change for fact in facts if (change := _status_change(fact))]
        self._events.publish([encode(change) for change in changes])
        self._core.replies.committed(len(committed) - len(facts))
        if facts:
            self._core.trim(facts[-1].number + 1)

    async def _tick(self) -> None:
        while True:
            now_ns, wall_ns = self._clock.tick(), time.time_ns()
            try:
                self._core.tick(now_ns, wall_ns)
            except Exception:
                log.exception("a tick failed; the next goes on")
            await self._commit()
            self._publish_depth(now_ns, wall_ns)
            await asyncio.sleep(self._limits.tick_ms / 1_000)

    async def close(self) -> None:
        """For a room that is no actor: what was decided is written, the store is closed."""
        self._run.cancel()
        await self._upkeep.close()
        await asyncio.gather(self._run, return_exceptions=True)
        await self._journal.close()
        await self._events.close()
        await self._depths.close()

    def _publish_depth(self, now_ns: int, wall_ns: int) -> None:
        """On change, at most one per `depth_interval_ms`; the tick after sends what was held back."""
        depth = self._core.depth()
        if depth == self._depth or now_ns - self._depth_ns < self._limits.depth_interval_ms * MS:
            return
        self._depth, self._depth_ns = depth, now_ns
        event = encode(QueueDepthChanged(depth, rfc3339(wall_ns)))
        self._depths.publish([event], event)

    def _tell(self, depth: int, wall_ns: int) -> None:
        """Somebody else's depth: once, and not what a new watcher hears first."""
        self._depths.publish([encode(QueueDepthChanged(depth, rfc3339(wall_ns)))])


@contextlib.contextmanager
def _resting_collector() -> Iterator[None]:
    """While 100,000 jobs are made that all stay, the collector would walk them over and over, for half of the
    time that it takes."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _status_change(fact: Fact | Announcement) -> JobStatusChanged | None:
    if isinstance(fact, Announcement):
        return JobStatusChanged(fact.job_id, fact.status, fact.at)
    return JobStatusChanged(fact.job.job_id, fact.job.status, fact.at) if fact.announced else None
