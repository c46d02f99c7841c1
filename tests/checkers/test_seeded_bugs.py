"""Each seeded bug is found, and by which rule; the store as it is, is found innocent."""

from __future__ import annotations

import pytest

from checkers import lifecycle, outcomes
from checkers import seeded_bugs as bugs
from checkers.history import Evidence
from checkers.violation import Violation
from checkers.world import BOUNDS, World
from checkers.world_server import Server
from fleet.job_store import JobStore

CASES = [
    (bugs.BelievesAnyToken, {"stale_token", "two_holders", "lifecycle"}),
    (bugs.KeepsTokenAfterExpiry, {"token_not_higher", "lifecycle"}),
    (bugs.GrantsTwiceInOneMatch, {"token_not_higher", "lifecycle"}),
    (bugs.EndsLeasesEarly, {"lifecycle"}),
    (bugs.StopsBeforeTheGraceIsOver, {"lifecycle"}),
    (bugs.TellsNobodyToStop, {"lifecycle"}),
    (bugs.ForgetsClaimsThatItAnswered, {"claim_repeated"}),
    (bugs.DropsAnAcknowledgedSubmit, {"lost"}),
    (bugs.SubmitsAgainWhatIsRepeated, {"duplicated"}),
    (bugs.InventsAJob, {"unexpected"}),
    (bugs.ForgetsWhatItRetried, {"unlinked_retry"}),
    (bugs.RetriesAgainWhatIsRepeated, {"duplicated"}),
    (bugs.AcceptsAnotherOutcome, {"two_outcomes", "changed_after_end", "lifecycle"}),
    (bugs.CompletesBeforeStart, {"lifecycle"}),
    (bugs.QueuesACompletedJobAgain, {"changed_after_end", "lifecycle"}),
    (bugs.QueuesAFinishedJobLater, {"changed_after_end", "changed_after_last", "lifecycle"}),
    (bugs.CompletesWhatTimedOut, {"lifecycle"}),
    (bugs.CountsNoAttempts, {"too_many_attempts", "lifecycle"}),
    (bugs.CountsReleases, {"lifecycle"}),
    (bugs.CountsReleasesBackTwice, {"lifecycle"}),
    (bugs.IgnoresACancelOfPending, {"lifecycle"}),
    (bugs.ForgetsACancelRequest, {"lifecycle"}),
    (bugs.NeverEndsALease, {"stuck"}),
    (bugs.LosesTheLastBatch, {"lost", "lifecycle"}),
    (bugs.AnswersBeforeTheCommit, {"lifecycle"}),
    (bugs.ResurrectsAFinishedJob, {"changed_after_end", "lifecycle"}),
]


def violations_of(evidence: Evidence) -> list[Violation]:
    return outcomes.check(evidence) + lifecycle.check(evidence, BOUNDS)


@pytest.mark.parametrize(("bug", "rules"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bug_is_found_by(bug: type[JobStore] | type[Server], rules: set[str]) -> None:
    found: set[str] = set()
    for seed in range(60):
        world = World(seed, make_server=bug) if issubclass(bug, Server) else World(seed, make_store=bug)
        found |= {violation.rule for violation in violations_of(world.run())}
        if rules <= found:
            return
    assert rules <= found
