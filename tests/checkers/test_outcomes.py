"""Each rule by its smallest broken history, beside a legal one that looks like it."""

from __future__ import annotations

import pytest

from checkers.history import Beat, Claim, Created, Granted, Read, Retry, Shown, Submit
from checkers.outcomes import RULES, check
from checkers.samples import (
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
from fleet.messages import JobToken

RETRIED = ok(Retry("j", "k"), Created(["j2"]), 90)
DONE = [submitted(), granted(2), said(E.START, S.RUNNING, 4), said(E.COMPLETE, S.COMPLETED, 6)]
LATER = final(S.COMPLETED, job_id="j2", submission="for-j", retry_of="j")

BROKEN = {
    "an acknowledged job that is gone": ({"lost"}, evidence(submitted(), finals=[])),
    "a retry whose job is gone": ({"lost"}, evidence(RETRIED, submitted(), finals=[final(S.FAILED)])),
    "a job that never ended": ({"stuck"}, evidence(submitted(), finals=[final(S.RUNNING)])),
    "a job of nobody": ({"unexpected"}, evidence(finals=[final(S.COMPLETED)])),
    "a job of a submit that was refused": (
        {"unexpected"},
        evidence(refused(Submit(["for-j"]), "queue_full", 0), finals=[final(S.COMPLETED)]),
    ),
    "a retry of nobody": ({"unexpected"}, evidence(*DONE, finals=[final(S.COMPLETED), LATER])),
    "one key answered with two jobs": (
        {"duplicated"},
        evidence(
            ok(Submit(["a"], "k"), Created(["j"]), 0),
            ok(Submit(["a"], "k"), Created(["j2"]), 2),
        ),
    ),
    "one key of two retries answered with two jobs": (
        {"duplicated"},
        evidence(RETRIED, ok(Retry("j", "k"), Created(["j3"]), 99)),
    ),
    "one submission that became two jobs": (
        {"duplicated"},
        evidence(
            submitted(), finals=[final(S.COMPLETED), final(S.COMPLETED, job_id="j2", submission="for-j")]
        ),
    ),
    "a retry without an answer that became two jobs": (
        {"duplicated"},
        evidence(
            submitted(),
            unknown(Retry("j", "k"), 5),
            unknown(Retry("j", "k"), 8),
            finals=[final(S.FAILED), LATER, final(S.FAILED, job_id="j3", retry_of="j")],
        ),
    ),
    "a retry that does not say of what": (
        {"unlinked_retry"},
        evidence(
            submitted(), RETRIED, finals=[final(S.FAILED), final(S.COMPLETED, job_id="j2", submission="")]
        ),
    ),
    "two outcomes": (
        {"two_outcomes", "changed_after_end"},
        evidence(*DONE, said(E.FAIL, S.FAILED, 6)),
    ),
    "the same outcome of two robots": (
        {"two_outcomes"},
        evidence(*DONE, said(E.COMPLETE, S.COMPLETED, 6, robot="s")),
    ),
    "an acknowledged outcome that is gone": (
        {"changed_after_end"},
        evidence(*DONE, finals=[final(S.FAILED)]),
    ),
    "a grant after the end": (
        {"changed_after_end"},
        evidence(*DONE, granted(10, robot="s", token=2, attempt=2)),
    ),
    "a report after a cancel that was told": (
        {"changed_after_end"},
        evidence(submitted(), cancelled(S.PENDING, 2), said(E.START, S.RUNNING, 5)),
    ),
    "a report after a read of the end": (
        {"changed_after_end"},
        evidence(submitted(), ok(Read("j"), Shown(S.FAILED, 1), 2), said(E.START, S.RUNNING, 5)),
    ),
    "a report between two reads of the end": (
        {"changed_after_end"},
        evidence(
            *DONE[:3],
            ok(Read("j"), Shown(S.FAILED, 1), 10),
            said(E.PROGRESS, S.RUNNING, 15),
            ok(Read("j"), Shown(S.FAILED, 1), 20),
        ),
    ),
    "a grant after a cancel that came too late": (
        {"changed_after_end"},
        evidence(submitted(), cancelled(S.COMPLETED, 2, done=False), granted(5)),
    ),
    "a job announced after its end": (
        {"changed_after_last"},
        evidence(
            submitted(), finals=[final(S.COMPLETED, path=[S.PENDING, S.COMPLETED, S.PENDING, S.COMPLETED])]
        ),
    ),
    "an old grant that is believed": (
        {"stale_token"},
        evidence(
            submitted(),
            granted(2),
            granted(10, token=2, attempt=2),
            said(E.COMPLETE, S.COMPLETED, 12, token=1),
        ),
    ),
    "two robots that work on it": (
        {"stale_token", "two_holders"},
        evidence(
            submitted(),
            granted(2),
            granted(10, robot="s", token=2, attempt=2),
            said(E.PROGRESS, S.RUNNING, 12, token=1),
        ),
    ),
    "more grants than attempts": (
        {"too_many_attempts"},
        evidence(submitted(), granted(2, most=1), granted(10, token=2, most=1)),
    ),
    "a grant that says so itself": (
        {"too_many_attempts"},
        evidence(submitted(), granted(2), granted(10, token=2, attempt=4)),
    ),
    "a job that says so in the end": (
        {"too_many_attempts"},
        evidence(submitted(), finals=[final(S.FAILED, attempt=4)]),
    ),
    "one token for two robots": (
        {"token_not_higher"},
        evidence(submitted(), granted(2, 9), granted(3, 8, robot="s")),
    ),
    "a token that falls": (
        {"token_not_higher"},
        evidence(submitted(), granted(2, token=5), granted(9, token=4)),
    ),
    "a claim said again that got another job": (
        {"claim_repeated"},
        evidence(
            submitted(), granted(2, request="q"), granted(5, robot="r", token=2, attempt=2, request="q")
        ),
    ),
}

BACK = said(E.RELEASE, S.PENDING, 4, attempt=0)
HEALTHY = {
    "nothing": evidence(finals=[]),
    "a whole life": evidence(*DONE, finals=[final(S.COMPLETED, path=[S.PENDING, S.CLAIMED, S.COMPLETED])]),
    "nobody looked at the end": evidence(submitted()),
    "a run that did not wait": evidence(submitted(), finals=[final(S.PENDING)], drained=False),
    "a submit without an answer that happened": evidence(
        unknown(Submit(["for-j"]), 0), finals=[final(S.COMPLETED)]
    ),
    "a submit without an answer that did not": evidence(unknown(Submit(["for-j"]), 0), finals=[]),
    "a submit refused, then accepted": evidence(
        refused(Submit(["for-j"]), "queue_full", 0), submitted(5), finals=[final(S.COMPLETED)]
    ),
    "one key said twice": evidence(
        ok(Submit(["a"], "k"), Created(["j"]), 0), ok(Submit(["a"], "k"), Created(["j"]), 2)
    ),
    "two jobs without key and mark": evidence(
        submitted(),
        submitted(job_id="j2"),
        finals=[final(S.COMPLETED, submission=""), final(S.COMPLETED, submission="", job_id="j2")],
    ),
    "calls that touch the end in time": evidence(
        submitted(),
        granted(2),
        granted(10, 12, robot="s", token=2, attempt=2),
        said(E.FAIL, S.CANCELLED, 12, 14),
        granted(14, robot="s", token=3, attempt=2),
        said(E.START, S.RUNNING, 14, token=3, robot="s"),
    ),
    "a job and its retry share a payload": evidence(
        submitted(), said(E.FAIL, S.FAILED, 5), RETRIED, finals=[final(S.FAILED), LATER]
    ),
    "a retry without an answer that happened": evidence(
        submitted(), unknown(Retry("j"), 5), finals=[final(S.FAILED), LATER]
    ),
    "two retries and two jobs": evidence(
        submitted(),
        unknown(Retry("j"), 5),
        unknown(Retry("j"), 8),
        finals=[final(S.FAILED), LATER, final(S.FAILED, job_id="j3", submission="for-j", retry_of="j")],
    ),
    "an outcome said again": evidence(*DONE, said(E.COMPLETE, S.COMPLETED, 20), finals=[final(S.COMPLETED)]),
    "an outcome said again after an answer that was lost": evidence(
        submitted(),
        granted(2),
        unknown(report(E.COMPLETE), 5),
        ok(Read("j"), Shown(S.COMPLETED, 1), 9),
        said(E.COMPLETE, S.COMPLETED, 20),
    ),
    "another outcome that was refused": evidence(*DONE, refused(report(E.FAIL), "terminal", 20)),
    "a retryable failure said again after the cancel": evidence(
        submitted(),
        granted(2),
        unknown(report(E.FAIL), 5),
        cancelled(S.PENDING, 8),
        said(E.FAIL, S.CANCELLED, 12),
    ),
    "a cancel of a job that runs, and its end": evidence(
        *DONE[:3], cancelled(S.RUNNING, 5), said(E.COMPLETE, S.COMPLETED, 8), finals=[final(S.COMPLETED)]
    ),
    "an old grant that is fenced": evidence(
        submitted(),
        granted(2),
        granted(10, robot="s", token=2, attempt=2),
        refused(report(E.COMPLETE), "stale_token", 12),
    ),
    "an old grant's report that overlaps the new grant": evidence(
        submitted(), granted(2), granted(10, 20, robot="s", token=2, attempt=2), said(E.FAIL, S.PENDING, 12)
    ),
    "an old grant's report said again after the new grant": evidence(
        submitted(),
        granted(2),
        unknown(report(E.FAIL), 5),
        granted(10, robot="s", token=2, attempt=2),
        said(E.FAIL, S.CLAIMED, 12, attempt=2),
    ),
    "attempts given back": evidence(
        submitted(), granted(2, most=1), BACK, granted(10, token=2, most=1), finals=[final(S.COMPLETED)]
    ),
    "an attempt perhaps given back": evidence(
        submitted(), granted(2, most=1), unknown(report(E.RELEASE), 5), granted(10, token=2, most=1)
    ),
    "overlapping claims answered in the other order": evidence(
        submitted(), granted(2, 9, token=5), granted(3, 8, robot="s", token=4)
    ),
    "a claim said again": evidence(
        submitted(), granted(2, request="q"), granted(5, request="q"), ok(Claim("r", "q"), Granted([]), 8)
    ),
    "a claim said again after it got nothing": evidence(
        submitted(), ok(Claim("r", "q"), Granted([]), 2), granted(5, request="q")
    ),
    "beats": evidence(*DONE, ok(Beat("r", [JobToken("j", 1)]), None, 5)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found(name: str) -> None:
    rules, broken = BROKEN[name]
    assert {violation.rule for violation in check(broken)} == rules


@pytest.mark.parametrize("name", HEALTHY)
def test_a_legal_history_is_not_accused(name: str) -> None:
    assert check(HEALTHY[name]) == []


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert {rule for rules, _ in BROKEN.values() for rule in rules} == {rule.__name__ for rule in RULES}


def test_a_violation_names_rule_and_job_and_shows_the_calls() -> None:
    [violation] = check(evidence(*DONE, finals=[final(S.FAILED)]))
    assert str(violation) == (
        "changed_after_end: j: it had ended completed; in the end it is failed\n"
        '  0.006..0.007     r {"do":"report","event":"complete","job_id":"j","robot_id":"r","token":1}'
        ' -> {"told":"shown","status":"completed","attempt":1}'
    )
