"""What else changes when a job's status does."""

from __future__ import annotations

from typing import Any

from fleet.job import Job, JobEvent, JobStatus
from fleet.messages import Report


def changes_of(
    job: Job,
    event: JobEvent,
    status: JobStatus,
    report: Report | None,
    robot_id: str | None,
    timed_out: bool,
    at: str,
) -> dict[str, Any]:
    """The attributes that change along with the status."""
    if event is JobEvent.CLAIM:
        granted = {"attempt": job.attempt + 1, "robot_id": robot_id, "claimed_at": at, "started_at": None}
        return granted | {"last_progress_at": at}
    if event is JobEvent.START:
        return {"started_at": at, "last_progress_at": at}
    if status is JobStatus.PENDING:
        back = 1 if event is JobEvent.RELEASE else 0
        error = report.error if report and event is JobEvent.FAIL else job.error
        attempt = {"attempt": job.attempt - back, "robot_id": None, "claimed_at": None, "started_at": None}
        return attempt | {"error": error, "progress": None, "last_progress_at": None}
    changes: dict[str, Any] = {"finished_at": at}
    if status is JobStatus.COMPLETED:
        changes |= {"result": report.result if report else None, "progress": 100.0, "error": None}
    if status is JobStatus.FAILED:
        changes |= {"dead_letter": True, "error": _reason(event, report, timed_out)}
    return changes


def _reason(event: JobEvent, report: Report | None, timed_out: bool) -> str:
    if timed_out:
        return "timeout"
    if event is JobEvent.PENDING_TIMEOUT:
        return "expired"
    if event is JobEvent.LEASE_EXPIRED:
        return "lease expired"
    return (report.error if report else None) or "failed"
