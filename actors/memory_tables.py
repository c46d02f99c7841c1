"""Stores without a disk, for tests: what they keep ends with the process."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from actors.job_tables import CLEANED, LOOKED_AT
from actors.writer import Counters, Opening
from fleet.events import encode
from fleet.job import Job
from fleet.job_record import (
    Announcement,
    Fact,
    HistoryEvent,
    JobFilter,
    JobRecord,
    JobsAtRest,
    history_event,
)
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

    def open(self, wall_ns: int) -> tuple[Opening, JobsAtRest]:
        return Opening(secrets.token_hex(6), {}, Counters()), JobsAtRest()

    def recent_events(self) -> list[bytes]:
        return []

    def write(self, records: Sequence[Fact | Announcement]) -> None:
        for fact in records:
            if isinstance(fact, Fact):
                seq = fact.record.seq
                self._records[seq] = fact.record
                self._seq_of[fact.job.job_id] = seq
                self._history.setdefault(seq, []).append(history_event(fact))

    def note_clock(self) -> None:
        pass

    def clean(self, wall_ns: int) -> int:
        before_ns = wall_ns - self._limits.retention_s * SECOND
        old = [seq for seq, record in self._records.items() if _ended_before(record.job, before_ns)][:CLEANED]
        for seq in old:
            del self._seq_of[self._records.pop(seq).job.job_id]
            del self._history[seq]
        return len(old)

    def compact(self) -> None:
        pass

    def find(self, job_ids: Sequence[str]) -> list[JobRecord]:
        return [self._records[self._seq_of[job_id]] for job_id in job_ids if job_id in self._seq_of]

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

    def history(self, job_id: str) -> list[HistoryEvent]:
        return list(self._history.get(self._seq_of.get(job_id, 0), ()))

    def close(self) -> None:
        pass


def _ended_before(job: Job, before_ns: int) -> bool:
    return job.finished_at is not None and wall_ns_of(job.finished_at) < before_ns
