"""What is written of jobs, and read again after a restart.

Times `_ns` are readings of the store's own clock, which goes on where it stopped when the store is opened
again; `_wall_ns` are nanoseconds since 1970.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from fleet.job import Job, JobEvent, JobStatus
from fleet.wall_time import WallTime

Value = TypeVar("Value")


class JobRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job and all that the store must know of it besides. No lease: after a restart every lease starts
    anew. `seq` is its place in the order of submission, `claim_id` the request that it was granted to by the
    event `claim_number`. `first_not_before` is that of the submission, `progress_events` how many the history
    has. `changed_at` is when its status became what it is, where the job does not tell,
    `progress_sum` that of its last progress report."""

    job: Job
    seq: int
    due_wall_ns: int
    token: int = 0
    timed_out: bool = False
    stop_at_ns: int | None = None
    timeout_at_ns: int | None = None
    expires_at_ns: int | None = None
    last_report: tuple[str, int, JobEvent] | None = None
    claim_id: str = ""
    lease_ms: int = 0
    first_not_before: WallTime | None = None
    progress_events: int = 0
    stuck_at_ns: int | None = None
    claim_number: int = 0
    changed_at: WallTime | None = None
    progress_sum: int = 0


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """A robot's words on its progress."""

    progress: float | None = None
    current_node: str | None = None
    message: str | None = None


class Fact(msgspec.Struct, frozen=True):
    """One change of one job. Those with `part` 0 are the events of the live-jobs feed, and `number` is their
    place in it; the others come after that event, in the order of `part`. One that is not `recorded` changes
    the job, and neither the feed nor its history tells of it: it has the number and part of the last."""

    number: int
    part: int
    event: JobEvent
    at: str
    record: JobRecord
    said: Said | None = None
    recorded: bool = True

    @property
    def announced(self) -> bool:
        return self.part == 0 and self.recorded

    @property
    def job(self) -> Job:
        return self.record.job


class Announcement(msgspec.Struct, frozen=True):
    """A job status that somebody told the fleet: an event of the live-jobs feed, of no job of ours."""

    number: int
    announcement_id: str
    job_id: str
    status: JobStatus
    at: str


class HistoryEvent(msgspec.Struct, frozen=True):
    """One line of a job's history. What it has nothing to say of is not there."""

    event: JobEvent
    status: JobStatus
    at: WallTime
    attempt: int
    robot_id: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    progress: float | UnsetType = UNSET
    current_node: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    retried_by: str | UnsetType = UNSET


def history_event(fact: Fact) -> HistoryEvent:
    job, said = fact.job, fact.said or Said()
    return HistoryEvent(
        fact.event,
        job.status,
        fact.at,
        job.attempt,
        _given(job.robot_id),
        _given(job.error),
        _given(said.progress),
        _given(said.current_node),
        _given(said.message),
        _given(job.retried_by),
    )


def _given(value: Value | None) -> Value | UnsetType:
    return UNSET if value is None else value


class JobsAtRest(msgspec.Struct, frozen=True):
    """What a store finds when it is opened: the jobs that are not finished, in the order of submission, and
    where its counters stand. `number` is that of the next event, `seq` of the next job. The ids are those of
    the newest jobs and announcements, should their senders repeat them; `replies_expiring` counts the kept
    replies by the minute since 1970 in which they expire."""

    records: list[JobRecord] = []
    number: int = 0
    part: int = 0
    seq: int = 1
    announcement_ids: list[str] = []
    job_ids: list[str] = []
    completed_today: int = 0
    failed_today: int = 0
    replies_expiring: dict[int, int] = {}


def without_payload(record: JobRecord) -> JobRecord:
    """The payload never changes after the submission, so that it is written once."""
    return with_payload(record, {}) if record.job.payload else record


def with_payload(record: JobRecord, payload: dict[str, Any]) -> JobRecord:
    return msgspec.structs.replace(record, job=msgspec.structs.replace(record.job, payload=payload))


class JobFilter(msgspec.Struct, frozen=True):
    """None admits all. Stuck jobs are known to the store that runs them, not to its tables."""

    status: str | None = None
    robot_id: str | None = None
    environment: str | None = None
    stuck: bool | None = None

    def admits(self, job: Job) -> bool:
        pairs: list[tuple[Any, Any]] = [
            (self.status, job.status),
            (self.robot_id, job.robot_id),
            (self.environment, job.environment),
        ]
        return all(asked in (None, value) for asked, value in pairs)
