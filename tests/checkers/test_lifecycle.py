"""One order of the calls must explain all answers: legal histories pass, impossible ones do not."""

from __future__ import annotations

from typing import Any

import pytest

from checkers.history import (
    Beat,
    Cancel,
    Cancelled,
    Change,
    Claim,
    Created,
    Granted,
    Op,
    Read,
    Retry,
    Shown,
    Submit,
    ToStop,
)
from checkers.job_model import Bounds, State
from checkers.lifecycle import check
from checkers.samples import (
    MS,
    E,
    S,
    cancelled,
    evidence,
    final,
    granted,
    ok,
    refused,
    report,
    said,
    submitted,
    unknown,
)
from fleet.job import JobStatus
from fleet.messages import JobToken

BOUNDS = Bounds(lease_ns=100 * MS, cancel_grace_ns=50 * MS, timeouts=True)
HELD = [submitted(), granted(10)]
RUNNING = [*HELD, said(E.START, S.RUNNING, 20)]
DONE = said(E.COMPLETE, S.COMPLETED, 30)
SECOND: dict[str, Any] = {"token": 2, "attempt": 2}
BACK_AND_FORTH = [S.PENDING, S.CLAIMED] * 2
LOST_CLAIM = unknown(Claim("s", "lost"), 3)


def beat(at: int, stop: bool = False, robot: str = "r", token: int = 1) -> Op:
    return ok(Beat(robot, [JobToken("j", token)]), ToStop(["j"] if stop else []), at, by=robot)


def read(status: JobStatus, at: int, until: int = 0, attempt: int = 1) -> Op:
    return ok(Read("j"), Shown(status, attempt), at, until)


LEGAL = {
    "no job": evidence(finals=[]),
    "a whole life": evidence(
        *RUNNING,
        beat(22),
        said(E.PROGRESS, S.RUNNING, 25),
        DONE,
        read(S.COMPLETED, 40),
        finals=[final(S.COMPLETED, path=[S.PENDING, S.CLAIMED, S.RUNNING, S.COMPLETED])],
    ),
    "a life whose submit nobody knows of": evidence(*RUNNING[1:], DONE),
    "a start and an end that overlap, answered in the other order": evidence(
        *HELD,
        said(E.START, S.RUNNING, 20, 45),
        said(E.COMPLETE, S.COMPLETED, 21, 40),
        finals=[final(S.COMPLETED)],
    ),
    "a cancel that loses against the end": evidence(
        *RUNNING, cancelled(S.COMPLETED, 29, 40, done=False), DONE, finals=[final(S.COMPLETED)]
    ),
    "a cancel that came first and the end all the same": evidence(
        *RUNNING, cancelled(S.RUNNING, 29, 40), DONE, finals=[final(S.COMPLETED)]
    ),
    "a cancel that a robot obeys": evidence(
        *RUNNING, cancelled(S.RUNNING, 22), beat(25, stop=True), said(E.CANCELLED, S.CANCELLED, 30)
    ),
    "a cancel that nobody obeys": evidence(
        *RUNNING, cancelled(S.RUNNING, 22), read(S.CANCELLED, 72), finals=[final(S.CANCELLED)]
    ),
    "a cancel of pending": evidence(submitted(), cancelled(S.PENDING, 5), read(S.CANCELLED, 7, attempt=0)),
    "a cancel that came first, was said again after the end, and got its first answer": evidence(
        *RUNNING,
        unknown(Cancel("j", "k"), 25),
        DONE,
        ok(Cancel("j", "k"), Cancelled(True, S.RUNNING), 40),
        finals=[final(S.COMPLETED)],
    ),
    "a second cancel": evidence(*HELD, cancelled(S.CLAIMED, 15), cancelled(S.CLAIMED, 17)),
    "a release": evidence(
        *HELD, said(E.RELEASE, S.PENDING, 15, attempt=0), granted(17, robot="s", token=2, attempt=1)
    ),
    "a release that was granted again in the same breath": evidence(
        *HELD, said(E.RELEASE, S.CLAIMED, 15), granted(12, 30, robot="s", token=2, attempt=1)
    ),
    "a retryable failure": evidence(*RUNNING, said(E.FAIL, S.PENDING, 30), granted(40, **SECOND)),
    "a fatal failure, and a retry": evidence(
        *RUNNING,
        said(E.FAIL, S.FAILED, 30, retryable=False),
        ok(Retry("j"), Created(["j2"]), 40),
        finals=[final(S.FAILED), final(S.PENDING, attempt=0, job_id="j2", retry_of="j")],
    ),
    "the last attempt": evidence(*HELD[:1], granted(10, most=1), said(E.FAIL, S.FAILED, 30)),
    "a lease that ends": evidence(
        *RUNNING, granted(121, robot="s", **SECOND), refused(report(E.COMPLETE), "stale_token", 130)
    ),
    "a lease that ends after the last beat": evidence(*RUNNING, beat(90), granted(191, robot="s", **SECOND)),
    "a lease whose beat may have been early": evidence(
        *RUNNING, ok(Beat("r", [JobToken("j", 1)]), ToStop([]), 21, 99), granted(125, robot="s", **SECOND)
    ),
    "a job that times out": evidence(
        submitted(timeout_s=0.03),
        *RUNNING[1:],
        beat(60, stop=True),
        read(S.FAILED, 102),
        finals=[final(S.FAILED)],
    ),
    "a job that times out and completes": evidence(
        submitted(timeout_s=0.005), *RUNNING[1:], beat(28, stop=True), DONE
    ),
    "a pending job that expires": evidence(
        submitted(pending_timeout_s=0.03), read(S.FAILED, 31, attempt=0), finals=[final(S.FAILED, attempt=0)]
    ),
    "refusals that the state explains": evidence(
        refused(Cancel("j"), "not_found", -5),
        refused(Read("j"), "not_found", -3),
        *HELD,
        refused(report(E.COMPLETE), "wrong_state", 15),
        refused(Retry("j"), "wrong_state", 16),
        refused(report(E.START, robot="s", token=9), "stale_token", 17),
        said(E.START, S.RUNNING, 20),
        DONE,
        refused(report(E.FAIL), "terminal", 40),
        refused(report(E.FAIL), "stale_token", 42),
        refused(report(E.FAIL, robot="s"), "not_yours", 44),
        refused(Read("j"), "not_found", 50),
    ),
    "a beat that names an older grant of the same robot": evidence(
        *HELD, said(E.RELEASE, S.PENDING, 15, attempt=0), granted(17, token=2), beat(20, token=1)
    ),
    "a job of which its robot hears no more": evidence(
        refused(report(E.START), "not_found", -5), *RUNNING, DONE, refused(report(E.FAIL), "not_found", 40)
    ),
    "refusals that say nothing of the state": evidence(
        *RUNNING, refused(Cancel("j"), "unavailable", 22), refused(Read("j"), "unavailable", 24), DONE
    ),
    "an attempt that nobody heard of, the only one": evidence(
        submitted(max_attempts=1), LOST_CLAIM, read(S.FAILED, 150)
    ),
    "the only attempt of a job of which only the end is known": evidence(
        LOST_CLAIM, read(S.FAILED, 150), finals=[final(S.FAILED, submission="", max_attempts=1)]
    ),
    "a beat that names a grant to come": evidence(*RUNNING, beat(25, stop=True, token=9)),
    "a lease that ends on the dot": evidence(*RUNNING, granted(105, 110, robot="s", **SECOND)),
    "a lease whose beat came before what it overlaps": evidence(
        *RUNNING,
        ok(Beat("r", [JobToken("j", 1)]), ToStop([]), 21, 99),
        read(S.RUNNING, 50, 98),
        granted(100, 122, robot="s", **SECOND),
    ),
    "a second cancel that gives no more time": evidence(
        *RUNNING, cancelled(S.RUNNING, 22), cancelled(S.RUNNING, 60), read(S.CANCELLED, 73)
    ),
    "a cancel after the timeout that gives no more time": evidence(
        submitted(timeout_s=0.02),
        *RUNNING[1:],
        beat(45, stop=True),
        cancelled(S.RUNNING, 60),
        read(S.FAILED, 91),
    ),
    # -- without answers
    "a submit without an answer": evidence(
        unknown(Submit(["for-j"]), 0), granted(10), finals=[final(S.CLAIMED)], drained=False
    ),
    "a submit answered the second time": evidence(
        unknown(Submit(["for-j"], "k"), 0), granted(3, 8), ok(Submit(["for-j"], "k"), Created(["j"]), 9)
    ),
    "a start that happened": evidence(*HELD, unknown(report(E.START), 20), DONE),
    "a start that happened, answered the second time after more": evidence(
        *HELD, unknown(report(E.START), 20), read(S.RUNNING, 23), said(E.START, S.RUNNING, 30)
    ),
    "an end that happened much later": evidence(
        *RUNNING, unknown(report(E.COMPLETE), 25), read(S.RUNNING, 60), read(S.COMPLETED, 80)
    ),
    "an end that never happened": evidence(
        *RUNNING, unknown(report(E.COMPLETE), 25), granted(130, robot="s", **SECOND)
    ),
    "an end that happened, and a failure that was refused": evidence(
        *RUNNING, unknown(report(E.COMPLETE), 25), refused(report(E.FAIL), "terminal", 30)
    ),
    "a failure said again after the next grant": evidence(
        *RUNNING,
        unknown(report(E.FAIL), 25),
        granted(30, robot="s", **SECOND),
        said(E.FAIL, S.CLAIMED, 40, attempt=2),
    ),
    "a cancel that happened": evidence(
        *RUNNING, unknown(Cancel("j"), 22), beat(25, stop=True), said(E.CANCELLED, S.CANCELLED, 30)
    ),
    "a cancel that never happened": evidence(*RUNNING, unknown(Cancel("j"), 22), beat(25), DONE),
    "a claim answered the second time": evidence(
        submitted(), unknown(Claim("r", "q"), 3), granted(30, request="q"), read(S.CLAIMED, 32)
    ),
    "a grant that nobody heard of": evidence(submitted(), LOST_CLAIM, granted(110, **SECOND)),
    "a grant that nobody heard of, named by a beat on the one before": evidence(
        unknown(Claim("r", "lost"), 3), *HELD, said(E.RELEASE, S.PENDING, 15, attempt=0), beat(20)
    ),
    "a grant that nobody heard of, given back": evidence(
        submitted(), LOST_CLAIM, granted(20, token=2), finals=[final(S.CLAIMED, path=BACK_AND_FORTH)]
    ),
    "a retry that happened": evidence(
        *HELD[:1],
        cancelled(S.PENDING, 3),
        unknown(Retry("j"), 9),
        finals=[final(S.CANCELLED, 0), final(S.PENDING, 0, job_id="j2", retry_of="j")],
    ),
}

ILLEGAL = {
    "a cancel after the end that another request got the answer of": evidence(
        *RUNNING,
        unknown(Cancel("j", "k"), 25),
        DONE,
        ok(Cancel("j", "other"), Cancelled(True, S.RUNNING), 40),
    ),
    "a cancel that was said again and whose answer was never true": evidence(
        *RUNNING,
        unknown(Cancel("j", "k"), 25),
        DONE,
        ok(Cancel("j", "k"), Cancelled(True, S.PENDING), 40),
    ),
    "a grant before the submit": evidence(granted(2), submitted(10)),
    "a grant before a submit without an answer": evidence(
        granted(2), unknown(Submit(["for-j"]), 10), finals=[final(S.CLAIMED)]
    ),
    "a grant between a submit refused and one accepted": evidence(
        refused(Submit(["for-j"]), "queue_full", 0), granted(3), submitted(10)
    ),
    "a job not found between two answers of its submit": evidence(
        submitted(), refused(Read("j"), "not_found", 5), submitted(50)
    ),
    "a job not found after its submit, and there in the end": evidence(
        submitted(), refused(Read("j"), "not_found", 5), finals=[final(S.PENDING, 0)]
    ),
    "a retry that was there before it was asked for": evidence(
        submitted(job_id="i"),
        cancelled(S.PENDING, 1, job_id="i"),
        read(S.PENDING, 3, attempt=0),
        unknown(Retry("i"), 9),
        finals=[final(S.CANCELLED, 0, job_id="i"), final(S.PENDING, 0, submission="for-i", retry_of="i")],
    ),
    "a grant told twice that was not there between": evidence(
        submitted(), granted(10, request="q"), read(S.PENDING, 30, attempt=0), granted(50, request="q")
    ),
    "an end told twice that was not there between": evidence(
        *RUNNING, DONE, read(S.RUNNING, 40), said(E.COMPLETE, S.COMPLETED, 50)
    ),
    "progress under an old token that said so before": evidence(
        *RUNNING,
        said(E.PROGRESS, S.RUNNING, 21),
        granted(121, robot="s", **SECOND),
        said(E.PROGRESS, S.CLAIMED, 130, attempt=2),
    ),
    "a failure with attempts left": evidence(submitted(), LOST_CLAIM, read(S.FAILED, 150)),
    "a failure with attempts left of a submit without an answer": evidence(
        unknown(Submit(["for-j"]), 0),
        LOST_CLAIM,
        finals=[final(S.FAILED, path=[S.PENDING, S.CLAIMED, S.FAILED])],
    ),
    "an expiry that nobody asked for in a submit without an answer": evidence(
        unknown(Submit(["for-j"]), 0), finals=[final(S.FAILED, attempt=0)]
    ),
    "an end before the start": evidence(*HELD, DONE, said(E.START, S.RUNNING, 40)),
    "an end without a start": evidence(*HELD, DONE),
    "a start under another token": evidence(*HELD, said(E.START, S.RUNNING, 20, token=2)),
    "a start of another robot": evidence(*HELD, said(E.START, S.RUNNING, 20, robot="s")),
    "an old grant's report": evidence(
        *HELD, granted(120, robot="s", **SECOND), said(E.START, S.RUNNING, 130)
    ),
    "progress of a job that is over": evidence(*RUNNING, DONE, said(E.PROGRESS, S.COMPLETED, 40)),
    "two ends": evidence(*RUNNING, DONE, said(E.FAIL, S.FAILED, 30)),
    "an end that reads otherwise": evidence(*RUNNING, said(E.COMPLETE, S.RUNNING, 30)),
    "a failure that counts otherwise": evidence(*RUNNING, said(E.FAIL, S.PENDING, 30, attempt=2)),
    "a retryable failure that ends it": evidence(*RUNNING, said(E.FAIL, S.FAILED, 30)),
    "a fatal failure that does not": evidence(*RUNNING, said(E.FAIL, S.PENDING, 30, retryable=False)),
    "two grants at once": evidence(*HELD, granted(12, robot="s", **SECOND)),
    "a token that does not rise": evidence(
        *HELD, said(E.FAIL, S.PENDING, 15), granted(20, token=1, attempt=2, request="q2")
    ),
    "an attempt that is not counted": evidence(*RUNNING, said(E.FAIL, S.PENDING, 30), granted(40, token=2)),
    "a release that is counted": evidence(
        *HELD, said(E.RELEASE, S.PENDING, 15, attempt=1), granted(17, **SECOND)
    ),
    "a release whose next grant is counted": evidence(
        *HELD, said(E.RELEASE, S.PENDING, 15, attempt=0), granted(17, **SECOND)
    ),
    "a cancel of pending that was ignored": evidence(submitted(), cancelled(S.PENDING, 5), granted(10)),
    "a cancel that came too late for nobody": evidence(*RUNNING, cancelled(S.COMPLETED, 30, done=False)),
    "a cancel that names another state": evidence(*RUNNING, cancelled(S.CLAIMED, 30)),
    "a cancel of a job that is not there": evidence(cancelled(S.PENDING, 2), submitted(5)),
    "a cancel that was forgotten": evidence(
        *RUNNING, cancelled(S.RUNNING, 22), said(E.FAIL, S.PENDING, 30), granted(40, **SECOND)
    ),
    "a robot that obeys a cancel of nobody": evidence(*RUNNING, said(E.CANCELLED, S.CANCELLED, 30)),
    "a robot told to stop for no reason": evidence(*RUNNING, beat(25, stop=True)),
    "a robot not told to stop": evidence(*RUNNING, cancelled(S.RUNNING, 22), beat(25)),
    "a robot not told that it lost the job": evidence(*RUNNING, granted(121, robot="s", **SECOND), beat(130)),
    "a start that shows it claimed": evidence(*HELD, said(E.START, S.CLAIMED, 20)),
    "a robot told to stop for an older grant": evidence(
        *HELD,
        said(E.RELEASE, S.PENDING, 15, attempt=0),
        granted(17, token=2),
        cancelled(S.CLAIMED, 20),
        beat(25, stop=True, token=1),
    ),
    "a beat for a grant to come that is believed": evidence(*RUNNING, beat(25, token=9)),
    "a beat of another robot that is believed": evidence(*RUNNING, beat(25, robot="s")),
    "a lease that ends early": evidence(*RUNNING, granted(100, 105, robot="s", **SECOND)),
    "a lease that ends early after a beat": evidence(*RUNNING, beat(90), granted(150, robot="s", **SECOND)),
    "a lease that ends early and was asked for long before": evidence(
        *HELD, granted(3, 120, robot="s", **SECOND), granted(150, 160, robot="t", token=3, attempt=3)
    ),
    "a grace that ends early": evidence(*RUNNING, cancelled(S.RUNNING, 22), read(S.CANCELLED, 60)),
    "a timeout that comes early": evidence(
        submitted(timeout_s=0.03), *RUNNING[1:], read(S.RUNNING, 22), beat(40, stop=True)
    ),
    "a grace of a timeout that ends early": evidence(
        submitted(timeout_s=0.03), *RUNNING[1:], read(S.FAILED, 90)
    ),
    "a timeout that nobody asked for": evidence(submitted(), *RUNNING[1:], read(S.FAILED, 90)),
    "an expiry that comes early": evidence(submitted(pending_timeout_s=0.03), read(S.FAILED, 20, attempt=0)),
    "an expiry that nobody asked for": evidence(submitted(), read(S.FAILED, 200, attempt=0)),
    "a grant that nobody heard of, and no claim": evidence(
        submitted(), ok(Claim("s", "q"), Granted([]), 3), granted(110, **SECOND)
    ),
    "a grant that nobody heard of before the claim": evidence(
        submitted(), unknown(Claim("s", "lost"), 20), granted(110, **SECOND)
    ),
    "a grant given back by nobody": evidence(
        submitted(), granted(20, token=2), finals=[final(S.CLAIMED, path=BACK_AND_FORTH)]
    ),
    "a read of what is not": evidence(*RUNNING, read(S.CLAIMED, 30)),
    "a read of another attempt": evidence(*RUNNING, read(S.RUNNING, 30, attempt=2)),
    "a job that is not found": evidence(*RUNNING, refused(Read("j"), "not_found", 30)),
    "a job that a cancel does not find": evidence(*RUNNING, refused(Cancel("j"), "not_found", 30)),
    "a job that its robot does not find": evidence(*RUNNING, refused(report(E.COMPLETE), "not_found", 30)),
    "a refusal as terminal of one that is not": evidence(*RUNNING, refused(report(E.FAIL), "terminal", 30)),
    "a refusal as stale of the newest": evidence(*RUNNING, refused(report(E.COMPLETE), "stale_token", 30)),
    "a refusal for a state that admits it": evidence(
        *RUNNING, refused(report(E.COMPLETE), "wrong_state", 30)
    ),
    "a retry of one that is not over": evidence(*RUNNING, ok(Retry("j"), Created(["j2"]), 30)),
    "a retry refused of one that is over": evidence(
        *HELD[:1], cancelled(S.PENDING, 3), refused(Retry("j"), "wrong_state", 30)
    ),
    "an end that the final state lacks": evidence(*RUNNING, DONE, finals=[final(S.FAILED)]),
    "an attempt that the final state lacks": evidence(*RUNNING, DONE, finals=[final(S.COMPLETED, 2)]),
    "a start that was not announced": evidence(
        *RUNNING, DONE, finals=[final(S.COMPLETED, path=[S.PENDING, S.CLAIMED, S.COMPLETED])]
    ),
    "an end that was not announced": evidence(
        *RUNNING, DONE, finals=[final(S.COMPLETED, path=[S.PENDING, S.CLAIMED, S.RUNNING])]
    ),
    "a grant announced as something else": evidence(
        *RUNNING, DONE, finals=[final(S.COMPLETED, path=[S.PENDING, S.FAILED, S.RUNNING, S.COMPLETED])]
    ),
    "a release announced as a failure": evidence(
        *HELD,
        said(E.RELEASE, S.PENDING, 15, attempt=0),
        finals=[
            final(
                S.PENDING,
                attempt=0,
                changes=[Change(S.PENDING, E.SUBMIT), Change(S.CLAIMED, E.CLAIM), Change(S.PENDING, E.FAIL)],
            )
        ],
    ),
    "an announcement of what did not happen": evidence(
        *RUNNING,
        DONE,
        finals=[final(S.COMPLETED, path=[S.PENDING, S.CLAIMED, S.RUNNING, S.COMPLETED, S.PENDING])],
    ),
    "a start without an answer under an old token": evidence(
        *HELD,
        unknown(report(E.START), 20),
        granted(120, robot="s", **SECOND),
        read(S.CLAIMED, 125, attempt=2),
        read(S.RUNNING, 130, attempt=2),
    ),
}


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_history_is_explained(name: str) -> None:
    assert [str(violation) for violation in check(LEGAL[name], BOUNDS)] == []


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_history_is_explained_without_bounds_too(name: str) -> None:
    assert check(LEGAL[name]) == []


@pytest.mark.parametrize("name", ILLEGAL)
def test_no_order_explains(name: str) -> None:
    assert {(one.rule, one.job_id) for one in check(ILLEGAL[name], BOUNDS)} == {("lifecycle", "j")}


@pytest.mark.parametrize("name", [name for name in ILLEGAL if "early" in name])
def test_how_soon_the_server_acts_is_not_asked_without_bounds(name: str) -> None:
    assert check(ILLEGAL[name]) == []


def test_a_violation_says_what_could_not_be_and_what_could() -> None:
    stop = unknown(Cancel("j"), 15)
    [violation] = check(evidence(LOST_CLAIM, *HELD, stop, DONE, said(E.START, S.RUNNING, 40)), BOUNDS)
    assert violation.detail == (
        'no order of the calls explains complete of r -> {"told":"shown","status":"completed","attempt":1}'
        " at 0.031; the job could be: claimed by r under token 1, attempt 1;"
        " or claimed by r under token 1, attempt 1, to be cancelled"
    )
    assert violation.records == [*HELD, stop, DONE]


def test_a_state_is_told_in_words() -> None:
    assert str(State()) == "not there"
    assert str(State(S.PENDING, 1, 4)) == "pending, attempt 1"
    held = State(S.RUNNING, 1, 4, "r", stopping=True, timed_out=True)
    assert str(held) == "running by r under token 4, attempt 1, to be cancelled, timed out"


def test_a_violation_of_the_end_names_the_final_state() -> None:
    path = [S.PENDING, S.CLAIMED, S.COMPLETED]
    [violation] = check(evidence(*HELD, finals=[final(S.COMPLETED, path=path)]))
    assert violation.detail == (
        "no order of the calls leads to the final state completed, attempt 1 by pending, claimed, completed;"
        " the job could be: claimed by r under token 1, attempt 1"
    )


def test_what_overlaps_too_much_is_undecided_which_is_a_failure() -> None:
    """Twenty reads at once, one of which is impossible: each set of them is a place."""
    reads = [read(S.PENDING, 10, 30 + n, attempt=0) for n in range(20)]
    impossible = read(S.RUNNING, 10, 60)
    [violation] = check(evidence(submitted(), *reads, impossible), Bounds(max_states=500))
    assert violation.rule == "undecided"
    assert check(evidence(submitted(), *reads), Bounds(max_states=500)) == []


def busy_life(lives: int) -> list[Op]:
    """A job that is held, beaten for and given back again and again."""
    ops = [submitted()]
    for n in range(lives):
        at, token = 10 + 100 * n, n + 1
        ops += [
            granted(at, token=token),
            unknown(report(E.START, token=token), at + 5),
            said(E.START, S.RUNNING, at + 10, token=token),
            *(beat(at + 20 + 10 * k, token=token) for k in range(6)),
            said(E.RELEASE, S.PENDING, at + 90, attempt=0, token=token),
        ]
    return ops


def test_a_legal_history_costs_a_place_an_operation() -> None:
    ops = busy_life(40)
    assert check(evidence(*ops), Bounds(lease_ns=100 * MS, max_states=len(ops))) == []
