"""Jobs whose robot is alive and does not get on with them."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from fleet.job import Job, JobEvent
from fleet.job_record import Fact, JobFilter, JobsAtRest
from fleet.job_store import JobStore
from fleet.limits import SECOND, Limits
from fleet.messages import Answer, Beats, Cancel, Claim, JobSpec, JobToken, Report, Submit
from fleet.wall_time import rfc3339

EPOCH_NS = 1_736_937_000_000_000_000
LIMITS = Limits(stuck_after_s=100)
E = JobEvent
ANY = JobFilter()


class World:
    """A store, a clock that the test moves, and a robot that never stops beating."""

    def __init__(self) -> None:
        self.store = JobStore(LIMITS, Random(1))
        self.now_s = 0
        self.tokens: dict[str, int] = {}
        self.facts: list[Any] = []

    @property
    def clock(self) -> tuple[int, int]:
        return self.now_s * SECOND, EPOCH_NS + self.now_s * SECOND

    def claimed(self, *job_ids: str, **spec: Any) -> None:
        for job_id in job_ids:
            self.store.submit(Submit([job_id], [JobSpec(name="weld", **spec)]), *self.clock)
            claim = Claim("door", "r", job_id, 1, 0, [], "hall", 100)
            answer = self.store.claim(claim, *self.clock)
            assert isinstance(answer, Answer)
            self.tokens[job_id] = answer.grants[0].token

    def say(self, event: JobEvent, job_id: str = "j", **more: Any) -> Job:
        return self.store.report(Report(event, job_id, "r", self.tokens[job_id], **more), *self.clock)

    def after(self, seconds: int) -> Job:
        """Second by second, with a heartbeat for every job in each; the job j then."""
        for _ in range(seconds):
            self.now_s += 1
            held = [JobToken(job_id, token) for job_id, token in self.tokens.items()]
            self.store.beats(Beats("r", held), self.clock[0])
            self.store.tick(*self.clock)
        self.facts += self.store.take_facts()
        return self.store.get("j")

    def stuck(self) -> list[str]:
        return [job.job_id for job in self.store.stuck_page(ANY, 0, 100)[0]]

    def counted(self) -> int:
        return self.store.counts(*self.clock).stuck

    def restart(self) -> None:
        self.after(0)
        newest = {fact.job.job_id: fact.record for fact in self.facts if isinstance(fact, Fact)}
        self.store = JobStore(LIMITS, Random(1))
        self.store.restore(JobsAtRest(list(newest.values()), seq=len(newest) + 1), *self.clock)


@pytest.fixture
def world() -> World:
    return World()


def test_a_job_that_is_claimed_and_not_started_for_long_is_stuck(world: World) -> None:
    world.claimed("j")
    assert world.after(99).stuck is False
    job = world.after(1)
    assert (job.stuck, job.status, job.last_progress_at) == (True, "claimed", rfc3339(EPOCH_NS))
    assert (world.stuck(), world.counted()) == (["j"], 1)


def test_a_running_job_of_which_nothing_is_heard_for_long_is_stuck_though_its_robot_beats(
    world: World,
) -> None:
    world.claimed("j")
    world.after(99)
    world.say(E.START)
    assert world.after(99).stuck is False
    assert world.after(1).stuck is True
    assert world.after(500).status == "running"


def test_every_report_of_progress_puts_it_off_even_one_without_progress(world: World) -> None:
    world.claimed("j")
    world.say(E.START)
    for _ in range(5):
        world.after(99)
        job = world.say(E.PROGRESS, progress=40.0)
    assert job.last_progress_at == rfc3339(world.clock[1])
    assert world.after(99).stuck is False
    assert world.after(1).stuck is True


@pytest.mark.parametrize("event", [E.START, E.PROGRESS])
def test_a_stuck_job_that_gets_on_is_stuck_no_more(world: World, event: JobEvent) -> None:
    world.claimed("j")
    world.after(100)
    assert world.say(event, progress=1.0).stuck is False
    assert (world.stuck(), world.counted()) == ([], 0)
    assert world.after(100).stuck is True


@pytest.mark.parametrize(
    ("event", "status"), [(E.RELEASE, "pending"), (E.FAIL, "failed"), (E.CANCELLED, "cancelled")]
)
def test_a_stuck_job_that_leaves_its_robot_is_stuck_no_more(
    world: World, event: JobEvent, status: str
) -> None:
    world.claimed("j")
    world.after(100)
    if event is E.CANCELLED:
        world.store.cancel_once(Cancel("j"), *world.clock)
    job = world.say(event, retryable=False)
    assert (job.status, job.stuck) == (status, False)
    assert (world.stuck(), world.counted()) == ([], 0)


def test_a_job_that_waits_in_the_queue_is_not_stuck(world: World) -> None:
    world.claimed("j")
    world.after(50)
    world.say(E.RELEASE)
    assert (world.after(500).stuck, world.stuck()) == (False, [])


def test_watchers_hear_nothing_of_it_and_the_history_does(world: World) -> None:
    world.claimed("j")
    world.after(101)
    told = [(fact.event, fact.announced, fact.recorded) for fact in world.facts]
    assert told == [(E.SUBMIT, True, True), (E.CLAIM, True, True), (E.STUCK, False, True)]


def test_a_restart_neither_forgets_a_stuck_job_nor_starts_its_time_anew(world: World) -> None:
    world.claimed("j")
    world.after(60)
    world.restart()
    assert world.after(39).stuck is False
    assert world.after(1).stuck is True
    world.restart()
    assert (world.stuck(), world.counted()) == (["j"], 1)
    world.say(E.START)
    assert world.stuck() == []


def test_stuck_jobs_are_listed_in_pages_the_newest_first(world: World) -> None:
    world.claimed("j", "k", "l")
    world.claimed("m", environment="hall")
    world.after(100)
    page, before = world.store.stuck_page(ANY, 0, 3)
    assert [job.job_id for job in page] == ["m", "l", "k"]
    rest, end = world.store.stuck_page(ANY, before, 3)
    assert ([job.job_id for job in rest], end) == (["j"], 0)
    of_hall, _ = world.store.stuck_page(JobFilter(environment="hall"), 0, 3)
    assert [job.job_id for job in of_hall] == ["m"]


def test_a_page_of_stuck_jobs_is_bounded_by_its_size_too(world: World) -> None:
    world.store = JobStore(Limits(stuck_after_s=100, max_page_bytes=1_000), Random(1))
    world.claimed("j", "k", "l", payload={"text": "x" * 600})
    world.after(100)
    page, before = world.store.stuck_page(ANY, 0, 10)
    assert [job.job_id for job in page] == ["l", "k"]
    assert [job.job_id for job in world.store.stuck_page(ANY, before, 10)[0]] == ["j"]
