"""One job as the store holds it."""

from __future__ import annotations

import msgspec

from fleet.dispatch import Needs
from fleet.events import encode
from fleet.job import Job, JobEvent
from fleet.job_record import JobRecord


class JobEntry(msgspec.Struct, kw_only=True):
    """The fields of its JobRecord, and what a restart may forget."""

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
    first_not_before: str | None = None
    progress_events: int = 0
    progress_sum: int = 0
    stuck_at_ns: int | None = None
    claim_number: int = 0

    needs: Needs
    size_bytes: int
    door: str = ""  # that heard of the grant last, and in answer to which call; unknown after a restart
    call: int = 0
    due: bool = False
    lease_until_ns: int | None = None
    changed_at: str = ""  # when its status became what it is

    @classmethod
    def of(cls, record: JobRecord) -> JobEntry:
        """Without its deadlines: they begin anew, or are taken from the record by who knows how."""
        job = record.job
        entry = cls(
            job=job,
            seq=record.seq,
            due_wall_ns=record.due_wall_ns,
            token=record.token,
            timed_out=record.timed_out,
            last_report=record.last_report,
            claim_id=record.claim_id,
            claim_number=record.claim_number,
            lease_ms=record.lease_ms,
            first_not_before=record.first_not_before,
            progress_events=record.progress_events,
            progress_sum=record.progress_sum,
            needs=(job.environment, frozenset(job.required_capabilities)),
            size_bytes=len(encode(job.payload)),
            changed_at=record.changed_at or last_change_of(job),
        )
        entry.add_result_size()
        return entry

    def add_result_size(self) -> None:
        if self.job.result is not None:
            self.size_bytes += len(encode(self.job.result))

    def record(self) -> JobRecord:
        return JobRecord(
            self.job,
            self.seq,
            self.due_wall_ns,
            self.token,
            self.timed_out,
            self.stop_at_ns,
            self.timeout_at_ns,
            self.expires_at_ns,
            self.last_report,
            self.claim_id,
            self.lease_ms,
            self.first_not_before,
            self.progress_events,
            self.stuck_at_ns,
            self.claim_number,
            None if self.changed_at == last_change_of(self.job) else self.changed_at,
            self.progress_sum,
        )

    def deadlines(self) -> list[tuple[int, JobEvent]]:
        dated = (
            (self.stop_at_ns, JobEvent.CANCEL_EXPIRED),
            (self.lease_until_ns, JobEvent.LEASE_EXPIRED),
            (self.timeout_at_ns, JobEvent.TIMEOUT),
            (self.expires_at_ns, JobEvent.PENDING_TIMEOUT),
            (self.stuck_at_ns, JobEvent.STUCK),
        )
        return [(at_ns, event) for at_ns, event in dated if at_ns is not None]


def last_change_of(job: Job) -> str:
    """As far as the job itself tells: of one that came back to the queue it does not."""
    return job.finished_at or job.started_at or job.claimed_at or job.created_at
