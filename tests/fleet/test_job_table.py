"""The table of the design, line by line, against the one in the code."""

from __future__ import annotations

from itertools import product

import pytest

from fleet.errors import Conflict
from fleet.job import ACTIVE, TERMINAL, TRANSITIONS, Ask, JobEvent, JobStatus, next_status

P, C, R = JobStatus.PENDING, JobStatus.CLAIMED, JobStatus.RUNNING
DONE, FAILED, STOPPED = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED
E = JobEvent

FRESH = Ask(attempts_left=True, cancel_requested=False)
SPENT = Ask(attempts_left=False, cancel_requested=False)
FATAL = Ask(attempts_left=True, cancel_requested=False, retryable=False)
STOPPING = Ask(attempts_left=True, cancel_requested=True)
STOPPING_SPENT = Ask(attempts_left=False, cancel_requested=True)
STOPPING_FATAL = Ask(attempts_left=True, cancel_requested=True, retryable=False)
LATE = Ask(attempts_left=True, cancel_requested=False, timed_out=True)
LATE_STOPPING = Ask(attempts_left=True, cancel_requested=True, timed_out=True)

# Section 4 of the design, a line each: sources, event, what the guards see, target ("same" stays).
LINES = [
    ([None], E.SUBMIT, FRESH, P),
    ([P], E.CLAIM, FRESH, C),
    ([C], E.START, FRESH, R),
    ([C, R], E.HEARTBEAT, FRESH, "same"),
    ([C, R], E.PROGRESS, FRESH, "same"),
    ([C, R], E.RELEASE, FRESH, P),
    ([C, R], E.RELEASE, SPENT, P),
    ([C, R], E.LEASE_EXPIRED, FRESH, P),
    ([C, R], E.LEASE_EXPIRED, SPENT, FAILED),
    ([C, R], E.LEASE_EXPIRED, STOPPING, STOPPED),
    ([C, R], E.LEASE_EXPIRED, STOPPING_SPENT, STOPPED),
    ([R], E.COMPLETE, FRESH, DONE),
    ([R], E.COMPLETE, SPENT, DONE),
    ([R], E.COMPLETE, STOPPING, DONE),
    ([R], E.COMPLETE, LATE, DONE),
    ([C, R], E.FAIL, FRESH, P),
    ([C, R], E.FAIL, SPENT, FAILED),
    ([C, R], E.FAIL, FATAL, FAILED),
    ([P], E.CANCEL, FRESH, STOPPED),
    ([C, R], E.CANCEL, FRESH, "same"),
    ([C, R], E.CANCELLED, STOPPING, STOPPED),
    ([C, R], E.CANCEL_EXPIRED, STOPPING, STOPPED),
    ([R], E.TIMEOUT, FRESH, "same"),
    ([C, R], E.CANCELLED, LATE, FAILED),
    ([C, R], E.CANCEL_EXPIRED, LATE, FAILED),
    ([C, R], E.LEASE_EXPIRED, LATE, FAILED),
    ([C, R], E.CANCELLED, LATE_STOPPING, FAILED),
    ([P], E.PENDING_TIMEOUT, FRESH, FAILED),
]
CASES = [
    pytest.param(source, event, ask, source if target == "same" else target, id=f"{source}-{event}-{index}")
    for index, (sources, event, ask, target) in enumerate(LINES)
    for source in sources
]
ADMITTED = {(source, event) for sources, event, _, _ in LINES for source in sources}
EVERY_ASK = [Ask(*flags) for flags in product((True, False), repeat=4)]


@pytest.mark.parametrize(("source", "event", "ask", "target"), CASES)
def test_a_line_of_the_table_holds(
    source: JobStatus | None, event: JobEvent, ask: Ask, target: JobStatus
) -> None:
    assert next_status(source, event, ask) is target


@pytest.mark.parametrize(
    ("status", "event"), [pair for pair in product([None, *JobStatus], JobEvent) if pair not in ADMITTED]
)
def test_a_pair_outside_the_table_is_refused_and_named(status: JobStatus | None, event: JobEvent) -> None:
    for ask in EVERY_ASK:
        with pytest.raises(Conflict) as refused:
            next_status(status, event, ask)
        assert f"is {status} " in refused.value.detail
        assert refused.value.detail.endswith(f" {event}")
        assert refused.value.code == ("terminal" if status in TERMINAL else "wrong_state")


def test_the_code_has_no_pair_that_the_table_lacks() -> None:
    assert {(rule.source, rule.event) for rule in TRANSITIONS} == ADMITTED


@pytest.mark.parametrize("held", sorted(ACTIVE))
def test_a_job_being_stopped_never_returns_to_the_queue(held: JobStatus) -> None:
    assert next_status(held, E.RELEASE, STOPPING) is STOPPED
    assert next_status(held, E.FAIL, STOPPING) is STOPPED
    assert next_status(held, E.FAIL, STOPPING_SPENT) is STOPPED
    assert next_status(held, E.FAIL, STOPPING_FATAL) is FAILED


@pytest.mark.parametrize("held", sorted(ACTIVE))
@pytest.mark.parametrize("ask", [LATE, LATE_STOPPING])
def test_a_job_that_timed_out_ends_failed_even_when_released_or_retryable(held: JobStatus, ask: Ask) -> None:
    assert next_status(held, E.RELEASE, ask) is FAILED
    assert next_status(held, E.FAIL, ask) is FAILED


@pytest.mark.parametrize("held", sorted(ACTIVE))
@pytest.mark.parametrize("event", [E.CANCELLED, E.CANCEL_EXPIRED])
def test_nobody_obeys_a_cancel_that_nobody_asked_for(held: JobStatus, event: JobEvent) -> None:
    with pytest.raises(Conflict, match=f"is {held} does not admit {event}"):
        next_status(held, event, FRESH)


def test_no_rule_leaves_a_terminal_state() -> None:
    assert not [rule for rule in TRANSITIONS if rule.source in TERMINAL]


def test_every_state_is_terminal_active_or_pending() -> None:
    assert {*TERMINAL, *ACTIVE, P} == set(JobStatus)
    assert not TERMINAL & ACTIVE
