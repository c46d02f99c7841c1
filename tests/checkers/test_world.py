"""The job store behind a bad network: whatever happens, the checkers find nothing to say."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from checkers import lifecycle, outcomes
from checkers.history import Evidence, Op, Report
from checkers.world import BOUNDS, World
from fleet.job import TERMINAL, JobStatus

SEEDS = range(48)


@pytest.fixture(scope="module")
def runs() -> list[Evidence]:
    return [World(seed).run() for seed in SEEDS]


def without_changes(run: Evidence) -> Evidence:
    """As a client sees it that did not listen to live-jobs."""
    assert run.finals is not None
    return replace(run, finals={name: replace(job, changes=None) for name, job in run.finals.items()})


def test_nothing_is_lost_doubled_or_ended_twice(runs: list[Evidence]) -> None:
    found = {seed: outcomes.check(run) for seed, run in zip(SEEDS, runs, strict=True)}
    assert {seed: [str(one) for one in some] for seed, some in found.items() if some} == {}


def test_the_table_explains_every_job_and_all_that_was_announced(runs: list[Evidence]) -> None:
    found = {seed: lifecycle.check(run, BOUNDS) for seed, run in zip(SEEDS, runs, strict=True)}
    assert {seed: [str(one) for one in some] for seed, some in found.items() if some} == {}


def test_the_table_explains_every_job_of_which_nothing_was_announced(runs: list[Evidence]) -> None:
    found = {
        seed: lifecycle.check(without_changes(run), BOUNDS) for seed, run in zip(SEEDS, runs, strict=True)
    }
    assert {seed: [str(one) for one in some] for seed, some in found.items() if some} == {}


def test_the_same_seed_gives_the_same_history() -> None:
    assert World(7).run() == World(7).run()


def test_the_world_is_bad_enough(runs: list[Evidence]) -> None:
    """Each kind of call is answered, refused for every reason, and left without an answer."""
    happened = Counter(name_of(op) for run in runs for op in run.ops)
    ends = Counter(job.status for run in runs for job in (run.finals or {}).values())
    assert set(ends) == set(TERMINAL)
    assert min(ends.values()) > len(SEEDS)
    reports = {f"{event} {end}" for event in REPORTED for end in ("ok", "unknown", "stale_token", "terminal")}
    calls = {
        f"{call} {end}"
        for call in ("Submit", "Retry", "Cancel", "Read", "Claim", "Beat")
        for end in ("ok", "unknown")
    }
    refusals = {"complete wrong_state", "Submit queue_full", "Claim no_free_slot"}
    assert reports | calls | refusals <= set(happened)
    attempts = max(job.attempt for run in runs for job in (run.finals or {}).values())
    assert attempts == 3
    assert JobStatus.PENDING not in ends


REPORTED = ("start", "progress", "complete", "fail", "release", "cancelled")


def name_of(op: Op) -> str:
    call = op.call.event if isinstance(op.call, Report) else type(op.call).__name__
    return f"{call} {op.code or op.outcome}"
