"""Jobs that failed for good: found by what they have in common, and tried again once."""

from __future__ import annotations

from typing import Any

import pytest
from job_world import E, JobWorld
from msgspec.structs import replace

from fleet.dead_letters import DeadLetterFilter, DeadLetters, Redrive, Redriven, look_through, redriven_id
from fleet.errors import Full, NotFound
from fleet.job import Job
from fleet.job_record import JobRecord
from fleet.messages import Retry

ALL = DeadLetterFilter()


@pytest.fixture
def world() -> JobWorld:
    return JobWorld()


def dead(world: JobWorld, *names: str, **spec: Any) -> list[JobRecord]:
    """Jobs that failed, as the journal has them."""
    found = []
    for name in names:
        world.submit(name, **spec)
        token = world.grant().token
        world.say(E.FAIL, token, name, error="jam", retryable=False)
        found.append(world.store._jobs[name].record())
    return found


def redrive(world: JobWorld, records: list[JobRecord], request_id: str = "r", **more: Any) -> Redriven:
    command = Redrive(ALL, request_id=request_id)
    return world.store.redrive(command, DeadLetters(records, **more), *world.clock)


def test_each_dead_letter_becomes_a_new_job_once(world: JobWorld) -> None:
    records = dead(world, "a", "b", priority=3, payload={"x": 1}, max_attempts=7)
    world.store.take_facts()
    done = redrive(world, records, remaining=5, place=9)
    assert (done.redriven, done.remaining, done.place) == (2, 5, 9)
    for old in ("a", "b"):
        new = world.store.get(redriven_id("r", old))
        assert (new.retry_of, new.status, new.attempt, new.priority) == (old, "pending", 0, 3)
        assert (new.payload, new.max_attempts, new.dead_letter) == ({"x": 1}, 7, False)
        assert world.store.get(old).retried_by == new.job_id
    assert redrive(world, records, "another").redriven == 0
    assert world.store.depth() == 2


def test_only_dead_letters_are_redriven_whatever_was_found(world: JobWorld) -> None:
    [record] = dead(world, "a")
    redriven = JobRecord(replace(record.job, job_id="b", retried_by="c"), 90, 0)
    cancelled = JobRecord(replace(record.job, job_id="c", dead_letter=False), 91, 0)
    assert redrive(world, [redriven, cancelled, record]).redriven == 1


def test_a_redrive_that_is_repeated_gets_its_first_reply(world: JobWorld) -> None:
    one, two = dead(world, "a", "b")
    first = redrive(world, [one])
    world.store.take_facts()
    assert redrive(world, [two]) == first
    assert world.store.take_facts() == []
    assert world.store.get("b").retried_by is None


def test_what_was_redriven_since_the_journal_was_read_is_not_redriven_again(world: JobWorld) -> None:
    """Not even when it has left memory and comes back as the journal had it."""
    records = dead(world, "a")
    redrive(world, records)
    del world.store._jobs["a"]
    assert redrive(world, records, "another").redriven == 0


def test_a_redrive_goes_as_far_as_the_queue_has_room() -> None:
    world = JobWorld(max_pending=2)
    records = dead(world, "a", "b", "c")
    done = redrive(world, records, remaining=4, place=9)
    assert (done.redriven, done.remaining, done.place) == (2, 5, records[1].seq)
    world.store.take_facts()
    with pytest.raises(Full) as refused:
        redrive(world, records, "another")
    assert refused.value.code == "queue_full"
    assert world.store.take_facts() == []
    world.grant()
    assert redrive(world, records, "another", place=9) == Redriven(1, 0, 9)
    assert redrive(world, records, "last") == Redriven(0, 0, 0)


def test_a_retry_by_hand_takes_a_job_from_the_dead_letters_too(world: JobWorld) -> None:
    records = dead(world, "a")
    world.store.retry(Retry("a", "again"), *world.clock)
    assert redrive(world, records).redriven == 0
    assert world.store.get("a").retried_by == "again"


def test_the_history_of_a_job_tells_that_it_was_retried_and_watchers_hear_nothing(world: JobWorld) -> None:
    records = dead(world, "a")
    world.store.take_facts()
    redrive(world, records)
    told = [(f.job.job_id, f.event, f.announced) for f in world.store.take_facts()[:-1]]  # type: ignore[union-attr]
    assert told == [(redriven_id("r", "a"), "submit", True), ("a", "retried", False)]


def test_what_was_redriven_is_not_forgotten_before_the_journal_knows_of_it() -> None:
    world = JobWorld(max_finished=1)
    records = dead(world, "a", "b")
    committed = world.store.take_facts()[-1].number + 1  # type: ignore[union-attr]
    redrive(world, records)
    world.store.trim(committed)
    assert {world.store.get(job_id).retried_by is None for job_id in "ab"} == {False}
    world.store.trim(committed + 3)
    with pytest.raises(NotFound):
        world.store.get("a")


def record(seq: int, **fields: Any) -> JobRecord:
    job = Job(job_id=f"j{seq}", name="weld", environment="hall", robot_id="r", error="arm jam 7")
    return JobRecord(Job(**{f: getattr(job, f) for f in Job.__struct_fields__} | fields), seq, 0)


@pytest.mark.parametrize(
    ("wanted", "admitted"),
    [
        (ALL, True),
        (DeadLetterFilter(name="weld", environment="hall", robot_id="r", error="jam"), True),
        (DeadLetterFilter(name="wel"), False),
        (DeadLetterFilter(environment="hal"), False),
        (DeadLetterFilter(robot_id="s"), False),
        (DeadLetterFilter(error="Jam"), False),
        (DeadLetterFilter(error="%"), False),
        (DeadLetterFilter(error=""), True),
        (DeadLetterFilter(job_ids=["j1"]), True),
        (DeadLetterFilter(job_ids=["j2"]), False),
    ],
)
def test_a_filter_takes_what_it_names_literally(wanted: DeadLetterFilter, admitted: bool) -> None:
    assert wanted.admits(record(1).job) is admitted


def test_a_look_ends_where_it_has_enough_and_tells_where_to_go_on() -> None:
    records = [record(n, error="jam" if n % 2 else "fire", payload={"a": "x" * 80}) for n in range(1, 10)]
    jam = DeadLetterFilter(error="jam")
    found, place = look_through(records, jam, 2, 10_000)
    assert ([r.seq for r in found], place) == ([1, 3], 3)
    found, place = look_through(records[place:], jam, 9, 10_000)
    assert ([r.seq for r in found], place) == ([5, 7, 9], 0)
    found, place = look_through(records, jam, 9, 100)
    assert ([r.seq for r in found], place) == ([1, 3], 3)
    assert look_through([], jam, 9, 100) == ([], 0)
    assert look_through(records, DeadLetterFilter(name="x"), 9, 100) == ([], 0)
