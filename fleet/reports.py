"""What a robot may say of a job that it holds, and what is wrong with what it says."""

from __future__ import annotations

import zlib
from typing import Any

from fleet.errors import Conflict, FleetError, Forbidden, Misuse, PeerFault
from fleet.events import encode
from fleet.job import ACTIVE, JobEvent
from fleet.job_entry import JobEntry
from fleet.job_record import Said
from fleet.messages import (
    Complete,
    Fail,
    Obeyed,
    Progress,
    Release,
    Report,
    RobotMessage,
    Start,
)

REPORTED = {
    JobEvent.START,
    JobEvent.PROGRESS,
    JobEvent.COMPLETE,
    JobEvent.FAIL,
    JobEvent.RELEASE,
    JobEvent.CANCELLED,
}


def said_again(entry: JobEntry, report: Report) -> bool:
    """A start and the end may come in one batch, so that of both only the answers are lost."""
    job = entry.job
    mine = (report.robot_id, report.token) == (job.robot_id, entry.token)
    started = report.event is JobEvent.START and job.started_at is not None
    return entry.last_report == (report.robot_id, report.token, report.event) or (mine and started)


def fenced(entry: JobEntry, report: Report) -> FleetError | None:
    """Why this robot with this token may not speak of the job, if so."""
    job = entry.job
    if entry.token == report.token and job.robot_id == report.robot_id:
        return None
    if entry.token == report.token and job.status in ACTIVE:
        return Forbidden(f"{job.job_id} is held by another robot", "not_yours")
    detail = f"token {report.token} of {job.job_id} is not its newest grant: stop working on it"
    return Conflict(detail, "stale_token")


def check_result(result: Any) -> None:
    """Before anything changes: what cannot be written is an error of this report alone."""
    try:
        encode(result)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PeerFault(f"the result is no JSON: {error}", "bad_result") from None


def said_in(report: Report) -> Said:
    return Said(report.progress, report.current_node, report.message)


def sum_of(report: Report) -> int:
    """Of what a robot says of its progress under this grant, to know it again."""
    return zlib.crc32(encode((report.token, said_in(report))))


def report_of(message: RobotMessage, robot_id: str) -> Report:
    """A robot's word on one of its jobs, as the job store takes it."""
    match message:
        case Start():
            return Report(JobEvent.START, message.job_id, robot_id, message.token)
        case Progress():
            return Report(
                JobEvent.PROGRESS,
                message.job_id,
                robot_id,
                message.token,
                progress=message.progress,
                current_node=message.current_node,
                message=message.message,
            )
        case Complete():
            return Report(JobEvent.COMPLETE, message.job_id, robot_id, message.token, result=message.result)
        case Fail():
            return Report(
                JobEvent.FAIL,
                message.job_id,
                robot_id,
                message.token,
                error=message.error,
                retryable=message.retryable,
            )
        case Release():
            return Report(JobEvent.RELEASE, message.job_id, robot_id, message.token)
        case Obeyed():
            return Report(JobEvent.CANCELLED, message.job_id, robot_id, message.token)
    raise Misuse(f"{type(message).__name__} is not about a job")
