"""Finds what must never happen to a job, whatever the order of calls: lost, doubled, ended twice.

Each rule looks at real time alone: one call came before another if its answer was there before the other was
sent. What overlaps is left to `lifecycle`. Calls that are one command said again (a submit by its key, a
claim by its request id, a report by robot, token and event) count once, from the first call on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import combinations

import msgspec

from checkers.history import Cancel as CancelCall
from checkers.history import (
    Cancelled,
    Claim,
    Created,
    Evidence,
    FinalJob,
    Grant,
    Granted,
    Op,
    Report,
    Retry,
    Shown,
    Submit,
)
from checkers.violation import Violation
from fleet.job import TERMINAL, JobEvent, JobStatus

_STOPPED = (JobStatus.FAILED, JobStatus.CANCELLED)
ENDS = {
    JobEvent.COMPLETE: (JobStatus.COMPLETED,),
    JobEvent.FAIL: _STOPPED,
    JobEvent.RELEASE: _STOPPED,
    JobEvent.CANCELLED: _STOPPED,
}


class Given(msgspec.Struct, frozen=True):
    """A grant that a robot heard of. `first_ns` is when it first asked, `op` the first that told it."""

    robot: str
    request: str
    grant: Grant
    first_ns: int
    op: Op


class Accepted(msgspec.Struct, frozen=True):
    """A report that was accepted. `first_ns` is when the robot first said it."""

    report: Report
    first_ns: int
    op: Op

    @property
    def shown(self) -> JobStatus | None:
        """The terminal state in which it was answered."""
        answer = self.op.answer
        return answer.status if isinstance(answer, Shown) and answer.status in TERMINAL else None

    @property
    def ended(self) -> bool:
        """It made the end of the job, not only heard of it."""
        return self.shown in ENDS.get(self.report.event, ())


class Facts:
    """The operations, sorted for the rules."""

    def __init__(self, evidence: Evidence) -> None:
        self.finals = evidence.finals
        self.drained = evidence.drained
        self.submits: list[tuple[Op, Submit]] = []
        self.retries: list[tuple[Op, Retry]] = []
        self.created: dict[str, Op] = {}
        self.answers: dict[tuple[str, str], list[tuple[Op, Granted]]] = defaultdict(list)
        self.given: dict[str, list[Given]] = defaultdict(list)
        self.accepted: dict[str, list[Accepted]] = defaultdict(list)
        self.unanswered: list[tuple[Op, Report]] = []
        self.ends: dict[str, list[tuple[JobStatus, Op]]] = defaultdict(list)
        self._asked: dict[tuple[str, str], Op] = {}
        self._said: dict[tuple[str, str, int, JobEvent], Op] = {}
        for op in evidence.ops:
            if op.outcome != "fail":
                self._sort(op)

    def _sort(self, op: Op) -> None:
        match op.call:
            case Submit() as submit:
                self.submits.append((op, submit))
                self._create(op)
            case Retry() as retry:
                self.retries.append((op, retry))
                self._create(op)
            case Claim() as claim:
                self._claim(op, claim)
            case Report() as report:
                self._report(op, report)
            case CancelCall(job_id):
                self._cancel(op, job_id)
            case _ if isinstance(op.answer, Shown) and op.answer.status in TERMINAL:
                self.ends[getattr(op.call, "job_id", "")].append((op.answer.status, op))

    def _create(self, op: Op) -> None:
        for job_id in op.answer.job_ids if isinstance(op.answer, Created) else ():
            self.created.setdefault(job_id, op)

    def _claim(self, op: Op, claim: Claim) -> None:
        name = (claim.robot_id, claim.request_id)
        first_ns = self._asked.setdefault(name, op).invoked_ns
        if not isinstance(op.answer, Granted):
            return
        known = {(grant.job_id, grant.token) for _, told in self.answers[name] for grant in told.grants}
        self.answers[name].append((op, op.answer))
        for grant in op.answer.grants:
            if (grant.job_id, grant.token) not in known:
                self.given[grant.job_id].append(Given(*name, grant, first_ns, op))

    def _report(self, op: Op, report: Report) -> None:
        first = self._said.setdefault((report.job_id, report.robot_id, report.token, report.event), op)
        if op.outcome == "unknown":
            self.unanswered.append((op, report))
            return
        accepted = Accepted(report, first.invoked_ns, op)
        self.accepted[report.job_id].append(accepted)
        if accepted.shown:
            self.ends[report.job_id].append((accepted.shown, op))

    def _cancel(self, op: Op, job_id: str) -> None:
        told = op.answer
        if not isinstance(told, Cancelled):
            return
        if not told.cancelled:
            self.ends[job_id].append((told.previous_status, op))
        elif told.previous_status is JobStatus.PENDING:
            self.ends[job_id].append((JobStatus.CANCELLED, op))


Rule = Callable[[Facts], Iterator[Violation]]


def check(evidence: Evidence) -> list[Violation]:
    facts = Facts(evidence)
    return [violation for rule in RULES for violation in rule(facts)]


# -- jobs


def lost(facts: Facts) -> Iterator[Violation]:
    """Acknowledged, and the server has no such job."""
    for job_id, op in facts.created.items() if facts.finals is not None else ():
        if job_id not in (facts.finals or {}):
            yield Violation("lost", job_id, "it was acknowledged, and the server has no trace of it", [op])


def stuck(facts: Facts) -> Iterator[Violation]:
    """The run waited for every job to end."""
    for final in (facts.finals or {}).values() if facts.drained else ():
        if final.status not in TERMINAL:
            records = [given.op for given in facts.given.get(final.job_id, [])]
            yield Violation("stuck", final.job_id, f"it is still {final.status}", records)


def unexpected(facts: Facts) -> Iterator[Violation]:
    """Nobody asked for it: neither an answer nor a call without an answer explains it."""
    submitted = {submission for _, submit in facts.submits for submission in submit.submissions}
    unknown = {retry.job_id for op, retry in facts.retries if op.outcome == "unknown"}
    keyed = {retry.job_id for _, retry in facts.retries if retry.key}  # more of one key: duplicated
    for job_id, final in (facts.finals or {}).items():
        asked = final.submission in submitted if final.retry_of is None else final.retry_of in unknown | keyed
        if not asked and job_id not in facts.created:
            yield Violation("unexpected", job_id, "it is there, and nobody submitted or retried it")


def duplicated(facts: Facts) -> Iterator[Violation]:
    """One submission, or one key, and more than one job."""
    jobs: dict[str, dict[str, Op | None]] = defaultdict(dict)
    for op, submit in facts.submits:
        for submission, job_id in zip(submit.submissions, _created(op), strict=False):
            jobs[f"submission {submission}"][job_id] = op
    keys = [(op, call.key) for op, call in facts.submits] + [(op, call.key) for op, call in facts.retries]
    for op, key in keys:
        if key and (job_ids := _created(op)):
            jobs[f"key {key}"].setdefault(job_ids[0], op)
    for final in (facts.finals or {}).values():
        if final.retry_of is None and final.submission:
            jobs[f"submission {final.submission}"].setdefault(final.job_id, None)
    for name, found in jobs.items():
        if len(found) > 1:
            records = [op for op in found.values() if op]
            yield Violation("duplicated", ", ".join(found), f"one {name}, and {len(found)} jobs", records)
    yield from _too_many_retries(facts)


def _too_many_retries(facts: Facts) -> Iterator[Violation]:
    asked: dict[str, dict[str, Op]] = defaultdict(dict)
    made: dict[str, list[FinalJob]] = defaultdict(list)
    for op, retry in facts.retries:
        asked[retry.job_id].setdefault(retry.key or f"{op.process} at {op.invoked_ns}", op)
    for final in (facts.finals or {}).values():
        if final.retry_of is not None:
            made[final.retry_of].append(final)
    for job_id, finals in made.items():
        if job_id in asked and len(finals) > len(asked[job_id]):
            detail = f"{len(asked[job_id])} retries of {job_id}, and {len(finals)} jobs"
            names = ", ".join(final.job_id for final in finals)
            yield Violation("duplicated", names, detail, list(asked[job_id].values()))


def _created(op: Op) -> list[str]:
    return op.answer.job_ids if isinstance(op.answer, Created) else []


def unlinked_retry(facts: Facts) -> Iterator[Violation]:
    """The new job says of what it is the retry."""
    for op, retry in facts.retries:
        for final in [(facts.finals or {}).get(job_id) for job_id in _created(op)]:
            if final is not None and final.retry_of != retry.job_id:
                detail = f"it was made as a retry of {retry.job_id} and says {final.retry_of}"
                yield Violation("unlinked_retry", final.job_id, detail, [op])


# -- outcomes


def two_outcomes(facts: Facts) -> Iterator[Violation]:
    """Two different reports were accepted, and each ended the job."""
    for job_id, accepted in facts.accepted.items():
        ended = {_identity(one.report): one for one in accepted if one.ended}
        if len(ended) > 1:
            said = " and ".join(f"{one.report.event} of {one.report.robot_id}" for one in ended.values())
            yield Violation("two_outcomes", job_id, f"it ended by {said}", [one.op for one in ended.values()])


def _identity(report: Report) -> tuple[str, int, JobEvent]:
    return report.robot_id, report.token, report.event


def changed_after_end(facts: Facts) -> Iterator[Violation]:
    """A client was told its end; afterwards it was granted, reported on, or has another end."""
    for job_id, ends in facts.ends.items():
        status, op = min(ends, key=lambda end: end[1].ended_ns)
        later = [one.op for one in facts.accepted.get(job_id, []) if one.first_ns > op.ended_ns]
        later += [given.op for given in facts.given.get(job_id, []) if given.first_ns > op.ended_ns]
        later += [other for another, other in ends if another is not status]
        final = (facts.finals or {}).get(job_id)
        if later or (final and final.status is not status):
            now = f"; in the end it is {final.status}" if final else ""
            yield Violation("changed_after_end", job_id, f"it had ended {status}{now}", [op, *later])


def changed_after_last(facts: Facts) -> Iterator[Violation]:
    """The server announced another status after a terminal one."""
    for job_id, final in (facts.finals or {}).items():
        path = [change.status for change in final.changes or ()]
        if any(status in TERMINAL for status in path[:-1]):
            yield Violation("changed_after_last", job_id, f"it was announced as {', '.join(path)}")


# -- grants


def stale_token(facts: Facts) -> Iterator[Violation]:
    """A report under an older token was accepted although a newer grant had been answered."""
    for job_id, one, newer in _stale(facts):
        told = f"{one.report.event} under token {one.report.token} was accepted"
        detail = f"{told} after the grant under token {newer.grant.token}"
        yield Violation("stale_token", job_id, detail, [newer.op, one.op])


def two_holders(facts: Facts) -> Iterator[Violation]:
    """Two robots at once: the older was not fenced when the newer had the job."""
    for job_id, one, newer in _stale(facts):
        if newer.robot != one.report.robot_id:
            older = [
                given.op for given in facts.given.get(job_id, []) if given.grant.token == one.report.token
            ]
            detail = f"{one.report.robot_id} worked on it while {newer.robot} held it"
            yield Violation("two_holders", job_id, detail, [*older, newer.op, one.op])


def _stale(facts: Facts) -> Iterator[tuple[str, Accepted, Given]]:
    for job_id, accepted in facts.accepted.items():
        for one in accepted:
            for given in facts.given.get(job_id, []):
                if given.grant.token > one.report.token and given.op.ended_ns < one.first_ns:
                    yield job_id, one, given
                    break


def too_many_attempts(facts: Facts) -> Iterator[Violation]:
    """Grants count, those that their robots gave back do not."""
    back: dict[str, set[tuple[str, int, JobEvent]]] = defaultdict(set)
    reports = [one.report for accepted in facts.accepted.values() for one in accepted]
    for report in reports + [report for _, report in facts.unanswered]:
        if report.event is JobEvent.RELEASE:
            back[report.job_id].add(_identity(report))
    for job_id, given in facts.given.items():
        most = given[0].grant.max_attempts
        attempts = len({one.grant.token for one in given}) - len(back[job_id])
        told = max(one.grant.attempt for one in given)
        if attempts > most or told > most:
            detail = f"{max(attempts, told)} attempts where {most} are allowed"
            yield Violation("too_many_attempts", job_id, detail, [one.op for one in given])
    for job_id, final in (facts.finals or {}).items():
        if final.attempt > final.max_attempts:
            detail = f"attempt {final.attempt} where {final.max_attempts} are allowed"
            yield Violation("too_many_attempts", job_id, detail)


def token_not_higher(facts: Facts) -> Iterator[Violation]:
    """Tokens of one job rise from grant to grant."""
    for job_id, given in facts.given.items():
        for one, other in combinations(sorted(given, key=lambda given: given.op.ended_ns), 2):
            token, newer = one.grant.token, other.grant.token
            if newer == token or (newer < token and one.op.ended_ns < other.first_ns):
                detail = f"granted under token {token}, then under token {newer}"
                yield Violation("token_not_higher", job_id, detail, [one.op, other.op])


def claim_repeated(facts: Facts) -> Iterator[Violation]:
    """A claim said again gets its first answer, less what is over by then; never another job."""
    for (robot, request), answers in facts.answers.items():
        tokens = [{(grant.job_id, grant.token) for grant in told.grants} for _, told in answers]
        if any(not one <= other and not other <= one for one, other in combinations(tokens, 2)):
            names = ", ".join(sorted({job_id for told in tokens for job_id, _ in told}))
            detail = f"request {request} of {robot} was granted them in different answers"
            yield Violation("claim_repeated", names, detail, [op for op, _ in answers])


RULES: tuple[Rule, ...] = (
    lost,
    stuck,
    unexpected,
    duplicated,
    unlinked_retry,
    two_outcomes,
    changed_after_end,
    changed_after_last,
    stale_token,
    two_holders,
    too_many_attempts,
    token_not_higher,
    claim_repeated,
)
