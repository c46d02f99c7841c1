"""From the operations of a run to those of each job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import msgspec

from checkers.history import (
    NEVER,
    Beat,
    Cancel,
    Cancelled,
    Claim,
    Created,
    Evidence,
    FinalJob,
    Grant,
    Granted,
    Op,
    Read,
    Report,
    Retry,
    Shown,
    Submit,
    ToStop,
)
from checkers.job_model import Bounds, JobModel
from checkers.job_steps import Beaten, Born, CancelAsked, Got, Refused, Reported, Retried, Seen, Step
from fleet.job import JobEvent

SECOND = 1_000_000_000
ALWAYS = -NEVER


class Trace(msgspec.Struct):
    """What is known of one job. `steps` are complete after `Traces` is made."""

    job_id: str
    ops: list[Op] = []
    steps: list[Step] = []
    born: Born | None = None
    spec: Submit | None = None
    got: dict[tuple[str, str, int], Got] = {}
    reports: dict[tuple[str, int, JobEvent], list[Op]] = {}
    unknown_cancel: CancelAsked | None = None
    max_attempts: int = 0
    final: FinalJob | None = None


class Traces:
    """Reads the operations once; a step per job and operation, fewer where operations are one command
    said again: the effect came between the first call and the first answer."""

    def __init__(self, evidence: Evidence) -> None:
        self.jobs: dict[str, Trace] = {}
        self.unseen_ns: int | None = None
        self._evidence = evidence
        self._submitted: dict[str, Op] = {}  # the first call of a submission that may have happened
        self._keyed: dict[str, Op] = {}
        self._cancels: dict[str, Op] = {}
        self._answered_cancels: set[str] = set()
        self._claimed: dict[tuple[str, str], Op] = {}
        self._unknown_retries: dict[str, list[Op]] = defaultdict(list)
        for op in evidence.ops:
            if op.outcome != "fail":
                self._first_call(op)
        for op in evidence.ops:
            self._read(op)
        for final in (evidence.finals or {}).values():
            self._finally(final)
        for trace in self.jobs.values():
            trace.steps += self._merged(trace)

    def model(self, trace: Trace, bounds: Bounds) -> JobModel:
        spec = trace.spec
        most = trace.max_attempts or (spec.max_attempts if spec else 2**31)
        changes = trace.final.changes if trace.final else None
        timeout_ns = _ns(spec.timeout_s, bounds) if spec else 0
        pending_timeout_ns = _ns(spec.pending_timeout_s, bounds) if spec else 0
        return JobModel(most, bounds, timeout_ns, pending_timeout_ns, self.unseen_ns, changes)

    # -- the first pass: commands that are said again are known by their first call

    def _first_call(self, op: Op) -> None:
        match op.call:
            case Submit(submissions=submissions):
                for submission in submissions:
                    self._submitted.setdefault(submission, op)
            case Retry(key=key) if key:
                self._keyed.setdefault(key, op)
            case Cancel(key=key) if key:
                self._cancels.setdefault(key, op)
                if op.outcome == "ok":
                    self._answered_cancels.add(key)
            case Claim(robot_id=robot_id, request_id=request_id):
                self._claimed.setdefault((robot_id, request_id), op)
                if op.outcome == "unknown":
                    self.unseen_ns = min(op.invoked_ns, NEVER if self.unseen_ns is None else self.unseen_ns)

    # -- the second pass

    def _read(self, op: Op) -> None:
        match op.call, op.answer:
            case Submit() as submit, Created(job_ids):
                for submission, job_id in zip(submit.submissions, job_ids, strict=False):
                    trace = self._trace(job_id, op)
                    trace.spec = submit
                    self._born(trace, op, self._submitted[submission].invoked_ns)
            case Retry() as retry, _:
                self._retry(op, retry)
            case Cancel(job_id, key), answer:
                self._cancel(self._trace(job_id, op), op, key, answer)
            case Read(job_id), Shown() as shown:
                self._step(job_id, Seen(op, op.invoked_ns, op.ended_ns, shown))
            case Read(job_id), _ if op.code == "not_found":
                self._step(job_id, Seen(op, op.invoked_ns, op.ended_ns, None))
            case Claim() as claim, Granted(grants):
                for grant in grants:
                    self._got(op, claim, grant)
            case Report() as report, _:
                self._report(op, report)
            case Beat(robot_id, jobs), ToStop(stopped):
                for job in jobs:
                    stop = job.job_id in stopped
                    self._step(job.job_id, Beaten(op, op.invoked_ns, op.ended_ns, robot_id, job.token, stop))

    def _trace(self, job_id: str, op: Op | None = None) -> Trace:
        trace = self.jobs.get(job_id)
        if trace is None:
            trace = self.jobs[job_id] = Trace(job_id)
        if op is not None:
            trace.ops.append(op)
        return trace

    def _step(self, job_id: str, step: Step) -> None:
        self._trace(job_id, step.op).steps.append(step)

    def _born(self, trace: Trace, op: Op, first_ns: int) -> None:
        if trace.born is None:
            trace.born = Born(op, first_ns, op.ended_ns)
        trace.born.ended_ns = min(trace.born.ended_ns, op.ended_ns)

    def _retry(self, op: Op, retry: Retry) -> None:
        original = self._trace(retry.job_id, op)
        if isinstance(op.answer, Created):
            first = self._keyed.get(retry.key, op)
            trace = self._trace(op.answer.job_ids[0], op)
            trace.spec = original.spec
            self._born(trace, op, first.invoked_ns)
            original.steps.append(Retried(op, first.invoked_ns, op.ended_ns, True))
        elif op.outcome == "unknown":
            self._unknown_retries[retry.job_id].append(op)
        elif op.code == "wrong_state":
            original.steps.append(Retried(op, op.invoked_ns, op.ended_ns, False))

    def _cancel(self, trace: Trace, op: Op, key: str, answer: object) -> None:
        first_ns = self._cancels[key].invoked_ns if key in self._cancels else op.invoked_ns
        step = CancelAsked(op, first_ns, op.ended_ns, answer if isinstance(answer, Cancelled) else None)
        if op.outcome == "ok":
            trace.steps.append(step)
        elif key in self._answered_cancels:
            return
        elif op.outcome == "unknown" and trace.unknown_cancel is None:
            trace.unknown_cancel = step  # a second one has nothing left to do
        elif op.code == "not_found":
            trace.steps.append(Seen(op, op.invoked_ns, op.ended_ns, None))

    def _got(self, op: Op, claim: Claim, grant: Grant) -> None:
        trace = self._trace(grant.job_id, op)
        trace.max_attempts = grant.max_attempts
        first_ns = self._claimed[(claim.robot_id, claim.request_id)].invoked_ns
        name = (claim.robot_id, claim.request_id, grant.token)
        got = trace.got.setdefault(name, Got(op, first_ns, op.ended_ns, claim.robot_id, grant))
        got.ended_ns = min(got.ended_ns, op.ended_ns)

    def _report(self, op: Op, report: Report) -> None:
        trace = self._trace(report.job_id, op)
        if op.outcome == "fail":
            said = (report.robot_id, report.token, report.event, report.retryable)
            trace.steps.append(Refused(op, op.invoked_ns, op.ended_ns, *said, op.code))
            return
        trace.reports.setdefault((report.robot_id, report.token, report.event), []).append(op)

    # -- the end: what the final state tells, and commands said again become one step

    def _finally(self, final: FinalJob) -> None:
        trace = self._trace(final.job_id)
        trace.final = final
        trace.max_attempts = final.max_attempts
        if trace.born is not None:
            return
        unknown = self._unknown_retries.get(final.retry_of or "")
        if final.retry_of is not None:
            trace.spec = self._trace(final.retry_of).spec
            op = unknown[0] if unknown else None
        else:
            op = self._submitted.get(final.submission)
            trace.spec = op.call if op and isinstance(op.call, Submit) else None
        if op is not None:
            trace.born = Born(op, op.invoked_ns, NEVER)
            trace.ops.insert(0, op)

    def _merged(self, trace: Trace) -> Iterator[Step]:
        yield trace.born or Born(None, ALWAYS, NEVER)
        yield from trace.got.values()
        if trace.unknown_cancel is not None:
            yield trace.unknown_cancel
        for (robot_id, token, event), ops in trace.reports.items():
            if event is JobEvent.PROGRESS:
                yield from (_reported(robot_id, token, [op]) for op in ops if op.outcome == "ok")
            else:
                yield _reported(robot_id, token, ops)


def _reported(robot_id: str, token: int, ops: list[Op]) -> Reported:
    first = min(ops, key=lambda op: op.ended_ns)
    report = first.call
    assert isinstance(report, Report)
    shown = first.answer if len(ops) == 1 and isinstance(first.answer, Shown) else None
    began_ns = min(op.invoked_ns for op in ops)
    return Reported(first, began_ns, first.ended_ns, robot_id, token, report.event, report.retryable, shown)


def _ns(seconds: float | None, bounds: Bounds) -> int | None:
    """0 where its length is not to be relied on."""
    if seconds is None:
        return None
    return int(seconds * SECOND) if bounds.timeouts else 0
