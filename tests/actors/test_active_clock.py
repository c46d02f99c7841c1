"""The clock of leases counts time in which its actor was there."""

from __future__ import annotations

from random import Random

from actors.active_clock import MAX_STEP_NS, ActiveClock
from fleet.job import JobEvent, JobStatus
from fleet.job_store import JobStore
from fleet.limits import MS, SECOND, Limits
from fleet.messages import Answer, Beats, Claim, JobSpec, JobToken, Report, Submit

WALL_NS = 1_736_937_000_000_000_000


class Stopwatch:
    def __init__(self) -> None:
        self.ns = 7 * SECOND

    def __call__(self) -> int:
        return self.ns


def test_it_counts_what_passes_between_readings() -> None:
    stopwatch = Stopwatch()
    clock = ActiveClock(0, stopwatch)
    for _ in range(100):
        stopwatch.ns += 20 * MS
        clock.tick()
    assert clock.now_ns == 2 * SECOND


def test_it_goes_on_from_where_an_earlier_life_was() -> None:
    stopwatch = Stopwatch()
    clock = ActiveClock(10 * SECOND, stopwatch)
    stopwatch.ns += MS
    assert clock.tick() == 10 * SECOND + MS


def test_of_a_long_silence_it_counts_one_step() -> None:
    stopwatch = Stopwatch()
    clock = ActiveClock(0, stopwatch)
    stopwatch.ns += 3_600 * SECOND
    assert clock.tick() == MAX_STEP_NS
    assert clock.tick() == MAX_STEP_NS


def test_one_step_is_shorter_than_any_lease_and_any_grace() -> None:
    limits = Limits()
    assert min(limits.min_lease_ms, limits.cancel_grace_ms) * MS > 2 * MAX_STEP_NS


def test_no_lease_ends_while_the_store_stands_still_though_the_robot_is_not_heard() -> None:
    limits = Limits()
    stopwatch = Stopwatch()
    clock = ActiveClock(0, stopwatch)
    store = JobStore(limits, Random(1))
    store.submit(Submit(["j"], [JobSpec(name="weld")]), clock.tick(), WALL_NS)
    answer = store.claim(Claim("door", "r", "q", 1, 0, [], "e", 1), clock.tick(), WALL_NS)
    assert isinstance(answer, Answer)
    token = answer.grants[0].token
    for _ in range(5):  # stopped for an hour, and again, with one beat of the robot in between
        stopwatch.ns += 3_600 * SECOND
        store.tick(clock.tick(), WALL_NS)
        assert store.beats(Beats("r", [JobToken("j", token)]), clock.tick()) == []
    start = Report(JobEvent.START, "j", "r", token)
    assert store.report(start, clock.tick(), WALL_NS).status is JobStatus.RUNNING
