"""Bugs that a job store or its boundary might have, to see that the checkers find them.

Stores are mutated through their public commands, and where that is not enough through `_grant` and `_move`.
"""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec.structs import replace

from checkers.world_server import Entry, Server
from fleet.errors import Conflict
from fleet.job import Job, JobEvent, JobStatus
from fleet.job_store import JobStore
from fleet.limits import Limits
from fleet.messages import (
    Answer,
    Beats,
    Cancelled,
    Claim,
    Granted,
    JobSpec,
    Outbox,
    Parked,
    Report,
    Retry,
    Submit,
    Withdraw,
)

E = JobEvent


class Remembering(JobStore):
    """Knows who was granted what, for its mutants."""

    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(limits, rng)
        self.newest: dict[str, Granted] = {}

    def _grant(self, entry: Any, claim: Claim, now_ns: int, wall_ns: int) -> Granted:
        granted = super()._grant(entry, claim, now_ns, wall_ns)
        self.newest[granted.job.job_id] = granted
        return granted


# -- tokens and leases


class BelievesAnyToken(Remembering):
    def report(self, report: Report, now_ns: int, wall_ns: int) -> Job:
        try:
            return super().report(report, now_ns, wall_ns)
        except Conflict as refused:
            if refused.code != "stale_token":
                raise
            newest = self.newest[report.job_id]
            believed = replace(report, token=newest.token, robot_id=newest.job.robot_id or "")
            return super().report(believed, now_ns, wall_ns)


class KeepsTokenAfterExpiry(JobStore):
    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(limits, rng)
        self.expired: set[str] = set()

    def _move(self, entry: Any, event: JobEvent, *args: Any, **named: Any) -> None:
        super()._move(entry, event, *args, **named)
        if event is E.LEASE_EXPIRED:
            self.expired.add(entry.job.job_id)

    def _grant(self, entry: Any, claim: Claim, now_ns: int, wall_ns: int) -> Granted:
        if entry.job.job_id in self.expired:
            self.expired.discard(entry.job.job_id)
            entry.token -= 1
        return super()._grant(entry, claim, now_ns, wall_ns)


class GrantsTwiceInOneMatch(Remembering):
    """The next claim of the same moment gets the job too."""

    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(limits, rng)
        self.last: tuple[int, Granted] | None = None

    def claim(self, claim: Claim, now_ns: int, wall_ns: int) -> Answer | Parked:
        said = super().claim(claim, now_ns, wall_ns)
        if isinstance(said, Answer) and said.grants:
            self.last = (now_ns, said.grants[0])
        elif self.last and now_ns - self.last[0] < 100_000_000:
            self.withdraw(Withdraw(claim.door, claim.robot_id, claim.call))
            granted, self.last = self.last[1], None
            if granted.job.robot_id != claim.robot_id:
                return Answer(claim.robot_id, claim.request_id, [granted])
        return said


class EndsLeasesEarly(JobStore):
    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(replace(limits, heartbeat_interval_ms=100, min_lease_ms=350), rng)


class StopsBeforeTheGraceIsOver(JobStore):
    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(replace(limits, cancel_grace_ms=100), rng)


class TellsNobodyToStop(JobStore):
    def beats(self, beats: Beats, now_ns: int) -> list[str]:
        super().beats(beats, now_ns)
        return []


class ForgetsClaimsThatItAnswered(JobStore):
    """A claim said again is a new one."""

    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(limits, rng)
        self.calls = 0

    def claim(self, claim: Claim, now_ns: int, wall_ns: int) -> Answer | Parked:
        self.calls += 1
        said = super().claim(replace(claim, request_id=f"{claim.request_id}#{self.calls}"), now_ns, wall_ns)
        return replace(said, request_id=claim.request_id)

    def outbox(self, door: str, epoch: int, cursor: int, now_ns: int) -> Outbox:
        page = super().outbox(door, epoch, cursor, now_ns)
        answers = [replace(one, request_id=one.request_id.split("#")[0]) for one in page.answers]
        return replace(page, answers=answers)


# -- submitting, retrying


class DropsAnAcknowledgedSubmit(JobStore):
    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(limits, rng)
        self.submits = 0

    def submit(self, command: Submit, now_ns: int, wall_ns: int) -> list[Job]:
        self.submits += 1
        if self.submits % 5 == 0:
            return JobStore(self._limits, Random(0)).submit(command, now_ns, wall_ns)
        return super().submit(command, now_ns, wall_ns)


class SubmitsAgainWhatIsRepeated(JobStore):
    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(limits, rng)
        self.times: dict[str, int] = {}

    def submit(self, command: Submit, now_ns: int, wall_ns: int) -> list[Job]:
        first = command.job_ids[0]
        self.times[first] = self.times.get(first, 0) + 1
        if self.times[first] > 1:
            ids = [f"{job_id}.{self.times[first]}" for job_id in command.job_ids]
            command = replace(command, job_ids=ids)
        return super().submit(command, now_ns, wall_ns)


class InventsAJob(JobStore):
    def submit(self, command: Submit, now_ns: int, wall_ns: int) -> list[Job]:
        invented = f"{command.job_ids[0]}.invented"
        super().submit(Submit([invented], [JobSpec(name="n")]), now_ns, wall_ns)
        return super().submit(command, now_ns, wall_ns)


class ForgetsWhatItRetried(JobStore):
    def retry(self, command: Retry, now_ns: int, wall_ns: int) -> Job:
        job = self.get(command.job_id)
        if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            return super().retry(command, now_ns, wall_ns)
        fields = {name: getattr(job, name) for name in JobSpec.__struct_fields__ if name != "not_before"}
        return self.submit(Submit([command.new_job_id], [JobSpec(**fields)]), now_ns, wall_ns)[0]


class RetriesAgainWhatIsRepeated(JobStore):
    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(limits, rng)
        self.retries = 0

    def retry(self, command: Retry, now_ns: int, wall_ns: int) -> Job:
        self.retries += 1
        again = replace(command, new_job_id=f"{command.new_job_id}.{self.retries}")
        return super().retry(again, now_ns, wall_ns)


# -- outcomes


class AcceptsAnotherOutcome(JobStore):
    def report(self, report: Report, now_ns: int, wall_ns: int) -> Job:
        try:
            return super().report(report, now_ns, wall_ns)
        except Conflict as refused:
            if refused.code != "terminal" or report.event is not E.FAIL:
                raise
            return replace(self.get(report.job_id), status=JobStatus.FAILED)


class CompletesBeforeStart(JobStore):
    def report(self, report: Report, now_ns: int, wall_ns: int) -> Job:
        if report.event is E.COMPLETE and self.get(report.job_id).status is JobStatus.CLAIMED:
            super().report(replace(report, event=E.START), now_ns, wall_ns)
        return super().report(report, now_ns, wall_ns)


class QueuesACompletedJobAgain(JobStore):
    """It says completed, and does as for a release."""

    def report(self, report: Report, now_ns: int, wall_ns: int) -> Job:
        if report.event is not E.COMPLETE or self.get(report.job_id).status is not JobStatus.RUNNING:
            return super().report(report, now_ns, wall_ns)
        job = super().report(replace(report, event=E.RELEASE), now_ns, wall_ns)
        return replace(job, status=JobStatus.COMPLETED)


class QueuesAFinishedJobLater(JobStore):
    """A tick takes it back after it was completed."""

    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(limits, rng)
        self.completed: list[Any] = []

    def _move(self, entry: Any, event: JobEvent, *args: Any, **named: Any) -> None:
        super()._move(entry, event, *args, **named)
        if event is E.COMPLETE and entry.job.attempt == 1:
            self.completed.append(entry)

    def tick(self, now_ns: int, wall_ns: int) -> None:
        for entry in self.completed:
            entry.job = replace(entry.job, status=JobStatus.PENDING)
            super()._move(entry, E.CLAIM, now_ns, wall_ns, robot_id="nobody")
            super()._move(entry, E.RELEASE, now_ns, wall_ns)
        self.completed.clear()
        super().tick(now_ns, wall_ns)


class CompletesWhatTimedOut(JobStore):
    def _move(self, entry: Any, event: JobEvent, *args: Any, **named: Any) -> None:
        late = event is E.CANCEL_EXPIRED and entry.job.status is JobStatus.RUNNING
        super()._move(entry, E.COMPLETE if late and not entry.job.cancel_requested else event, *args, **named)


# -- attempts


class _Miscounting(JobStore):
    def _correct(self, entry: Any, by: int) -> None:
        entry.job = replace(entry.job, attempt=entry.job.attempt + by)


class CountsNoAttempts(_Miscounting):
    def _move(self, entry: Any, event: JobEvent, *args: Any, **named: Any) -> None:
        super()._move(entry, event, *args, **named)
        if event is E.CLAIM:
            self._correct(entry, -1)
        elif event is E.RELEASE and entry.job.status is JobStatus.PENDING:
            self._correct(entry, 1)


class CountsReleases(_Miscounting):
    def _move(self, entry: Any, event: JobEvent, *args: Any, **named: Any) -> None:
        super()._move(entry, event, *args, **named)
        if event is E.RELEASE and entry.job.status is JobStatus.PENDING:
            self._correct(entry, 1)


class CountsReleasesBackTwice(_Miscounting):
    def _move(self, entry: Any, event: JobEvent, *args: Any, **named: Any) -> None:
        super()._move(entry, event, *args, **named)
        if event is E.RELEASE and entry.job.status is JobStatus.PENDING:
            self._correct(entry, -1)


# -- cancelling


class IgnoresACancelOfPending(JobStore):
    def cancel(self, job_id: str, now_ns: int, wall_ns: int) -> Cancelled:
        status = self.get(job_id).status
        if status is JobStatus.PENDING:
            return Cancelled(job_id, True, status, "cancelled")
        return super().cancel(job_id, now_ns, wall_ns)


class ForgetsACancelRequest(JobStore):
    def cancel(self, job_id: str, now_ns: int, wall_ns: int) -> Cancelled:
        status = self.get(job_id).status
        if status in (JobStatus.CLAIMED, JobStatus.RUNNING):
            return Cancelled(job_id, True, status, "cancel requested; the robot has been told")
        return super().cancel(job_id, now_ns, wall_ns)


class NeverEndsALease(JobStore):
    def __init__(self, limits: Limits, rng: Random) -> None:
        super().__init__(replace(limits, min_lease_ms=10_000_000), rng)


# -- the journal


class LosesTheLastBatch(Server):
    """What it acknowledged last is not in the journal."""

    def kept(self) -> list[Entry]:
        kept = super().kept()
        commands = [n for n, entry in enumerate(kept) if entry.method not in ("tick", "outbox")]
        return kept[: commands[-3]] if len(commands) > 3 else kept


class AnswersBeforeTheCommit(Server):
    def commit(self, answers: list[tuple[Any, Any]]) -> None:
        for reply, value in answers:
            reply(value)
        super().commit(answers)


class ResurrectsAFinishedJob(Server):
    def kept(self) -> list[Entry]:
        kept = super().kept()
        done = [n for n, entry in enumerate(kept) if _completes(entry)]
        return kept[: done[-1]] + kept[done[-1] + 1 :] if done else kept


def _completes(entry: Entry) -> bool:
    said = entry.args[0]
    return isinstance(said, Report) and said.event is E.COMPLETE and bool(entry.facts)
