"""Stores without a disk, for tests: what they keep ends with the process."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from actors.job_tables import CLEANED, LOOKED_AT
from actors.writer import Counters, Opening
from fleet.dead_letters import DeadLetterFilter, DeadLetters, is_dead_letter, look_through
from fleet.events import encode
from fleet.job import Job, JobEvent
from fleet.job_record import (
    Fact,
    HistoryEvent,
    JobFilter,
    JobRecord,
    JobsAtRest,
    history_event,
)
from fleet.job_store import Change
from fleet.kept_replies import KeptReply
from fleet.limits import SECOND, Limits
from fleet.wall_time import wall_ns_of


class MemoryJobTables:
    """Behaves as JobTables does, but is empty when it is opened."""

    blocking = False

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.now_ns: Callable[[], int] = lambda: 0
        self._records: dict[int, JobRecord] = {}  # in the order of submission
        self._seq_of: dict[str, int] = {}
        self._history: dict[int, list[HistoryEvent]] = {}
        self._replies: dict[str, KeptReply] = {}

    def open(self, wall_ns: int) -> tuple[Opening, JobsAtRest]:
        return Opening(secrets.token_hex(6), {}, Counters()), JobsAtRest()

    def recent_events(self) -> list[bytes]:
        return []

    def write(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Fact):
                self._write_job(change)
            elif isinstance(change, KeptReply):
                self._replies[change.request_id] = change

    def _write_job(self, fact: Fact) -> None:
        seq = fact.record.seq
        if seq not in self._records and fact.event is not JobEvent.SUBMIT:
            return  # retention deleted it
        self._records[seq] = fact.record
        self._seq_of[fact.job.job_id] = seq
        if fact.recorded:
            self._history.setdefault(seq, []).append(history_event(fact))

    def note_clock(self) -> None:
        pass

    def clean(self, wall_ns: int) -> int:
        before_ns = wall_ns - self._limits.retention_s * SECOND
        old = [seq for seq, record in self._records.items() if _ended_before(record.job, before_ns)][:CLEANED]
        for seq in old:
            del self._seq_of[self._records.pop(seq).job.job_id]
            del self._history[seq]
        expired = [name for name, kept in self._replies.items() if kept.expires_wall_ns < wall_ns][:CLEANED]
        for request_id in expired:
            del self._replies[request_id]
        return max(len(old), len(expired))

    def compact(self) -> bool:
        return False

    def begin_log(self) -> None:
        pass

    def find(self, job_ids: Sequence[str]) -> list[JobRecord]:
        return [self._records[self._seq_of[job_id]] for job_id in job_ids if job_id in self._seq_of]

    def replies(self, request_ids: Sequence[str]) -> list[KeptReply]:
        return [self._replies[name] for name in request_ids if name in self._replies]

    def dead_letters(
        self, wanted: DeadLetterFilter, place: int, limit: int, max_bytes: int, newest_first: bool
    ) -> DeadLetters:
        dead = [record for record in self._records.values() if is_dead_letter(record.job)]
        dead = [r for r in dead if not place or (r.seq < place if newest_first else r.seq > place)]
        found, place = look_through(reversed(dead) if newest_first else dead, wanted, limit, max_bytes)
        remaining = sum(r.seq < place if newest_first else r.seq > place for r in dead) if place else 0
        return DeadLetters(found, place, remaining)

    def page(self, wanted: JobFilter, before: int, limit: int) -> tuple[list[Job], int]:
        newest, oldest = next(reversed(self._records), 0), next(iter(self._records), 1)
        seq = min(before, newest + 1) if before else newest + 1
        floor = max(oldest, seq - LOOKED_AT)
        found: list[Job] = []
        size = 0
        while seq > floor and len(found) < limit and size < self._limits.max_page_bytes:
            seq -= 1
            record = self._records.get(seq)
            if record and wanted.admits(record.job):
                found.append(record.job)
                size += len(encode(record.job.payload)) + len(encode(record.job.result))
        return found, seq if seq > oldest else 0

    def history(self, job_id: str, skip: int = 0, limit: int = 1_000) -> list[HistoryEvent]:
        return self._history.get(self._seq_of.get(job_id, 0), [])[skip : skip + limit]

    def close(self) -> None:
        pass


def _ended_before(job: Job, before_ns: int) -> bool:
    return job.finished_at is not None and wall_ns_of(job.finished_at) < before_ns
