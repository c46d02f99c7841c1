"""From what somebody submits to jobs, and back."""

from __future__ import annotations

from fleet.job import Ask, Job, JobEvent, next_status
from fleet.job_record import JobRecord
from fleet.messages import JobSpec, Submit
from fleet.wall_time import rfc3339, wall_ns_of

_SUBMITTED = tuple(name for name in JobSpec.__struct_fields__ if name != "not_before")


def new_jobs(command: Submit, seq: int, wall_ns: int) -> list[JobRecord]:
    """All of them, or none: raises PeerFault for a time that is none. The first gets the number `seq`."""
    at = rfc3339(wall_ns)
    pairs = zip(command.job_ids, command.specs, strict=True)
    return [
        _new_job(job_id, spec, command.retry_of, seq + index, at, wall_ns)
        for index, (job_id, spec) in enumerate(pairs)
    ]


def _new_job(job_id: str, spec: JobSpec, retry_of: str | None, seq: int, at: str, wall_ns: int) -> JobRecord:
    due = max(wall_ns_of(spec.not_before), wall_ns) if spec.not_before else wall_ns
    job = Job(
        job_id=job_id,
        status=next_status(None, JobEvent.SUBMIT, Ask(True, False)),
        created_at=at,
        retry_of=retry_of,
        not_before=rfc3339(due) if spec.not_before else None,
        **{name: getattr(spec, name) for name in _SUBMITTED},
    )
    return JobRecord(job, seq, due, first_not_before=job.not_before)


def as_submitted(record: JobRecord) -> Job:
    """The job as it was answered first, whatever became of it."""
    job = record.job
    return Job(
        job_id=job.job_id,
        created_at=job.created_at,
        retry_of=job.retry_of,
        not_before=record.first_not_before,
        **{name: getattr(job, name) for name in _SUBMITTED},
    )


def spec_of(job: Job) -> JobSpec:
    """To submit it once more, at once."""
    return JobSpec(**{name: getattr(job, name) for name in _SUBMITTED})
