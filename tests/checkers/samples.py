"""Operations for hand-made histories: one job `j`, robots `r` and `s`, times in milliseconds."""

from __future__ import annotations

from typing import Any

from checkers.history import (
    AnyCall,
    AnyTold,
    Cancel,
    Cancelled,
    Change,
    Claim,
    Created,
    Evidence,
    FinalJob,
    Grant,
    Granted,
    Op,
    Report,
    Shown,
    Submit,
)
from fleet.job import JobEvent, JobStatus

MS = 1_000_000
S = JobStatus
E = JobEvent


def ok(call: AnyCall, answer: AnyTold | None, at: int, until: int = 0, by: str = "c") -> Op:
    return Op(by, call, at * MS, (until or at + 1) * MS, "ok", answer)


def refused(call: AnyCall, code: str, at: int, until: int = 0, by: str = "c") -> Op:
    return Op(by, call, at * MS, (until or at + 1) * MS, "fail", code=code)


def unknown(call: AnyCall, at: int, by: str = "c") -> Op:
    return Op(by, call, at * MS)


def submitted(at: int = 0, until: int = 0, job_id: str = "j", **spec: Any) -> Op:
    return ok(Submit([f"for-{job_id}"], **spec), Created([job_id]), at, until)


def granted(at: int, until: int = 0, robot: str = "r", token: int = 1, attempt: int = 1, **more: Any) -> Op:
    claim = Claim(robot, more.get("request", f"{robot}{token}"))
    grant = Grant("j", token, attempt, more.get("most", 3))
    return ok(claim, Granted([grant]), at, until, robot)


def report(event: JobEvent, robot: str = "r", token: int = 1, retryable: bool = True) -> Report:
    return Report(event, "j", robot, token, retryable)


def said(event: JobEvent, status: JobStatus, at: int, until: int = 0, attempt: int = 1, **more: Any) -> Op:
    call = report(event, **more)
    return ok(call, Shown(status, attempt), at, until, call.robot_id)


def cancelled(previous: JobStatus, at: int, until: int = 0, done: bool = True, job_id: str = "j") -> Op:
    return ok(Cancel(job_id), Cancelled(done, previous), at, until)


def final(
    status: JobStatus, attempt: int = 1, path: list[JobStatus] | None = None, job_id: str = "j", **more: Any
) -> FinalJob:
    changes = None if path is None else [Change(status) for status in path]
    fields: dict[str, Any] = {"max_attempts": 3, "submission": f"for-{job_id}", "changes": changes} | more
    return FinalJob(job_id, status, attempt, **fields)


def evidence(*ops: Op, finals: list[FinalJob] | None = None, drained: bool = True) -> Evidence:
    in_order = sorted(ops, key=lambda op: op.invoked_ns)
    return Evidence(in_order, None if finals is None else {one.job_id: one for one in finals}, drained)
