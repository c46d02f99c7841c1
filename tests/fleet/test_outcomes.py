"""One outcome, whatever comes together: races, storms, poison, results that are none."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from job_world import EPOCH_NS, E, JobWorld

from fleet.errors import Conflict, FleetError, PeerFault
from fleet.job import TERMINAL, Job
from fleet.job_record import Fact
from fleet.job_store import JobStore
from fleet.limits import SECOND, Limits
from fleet.messages import Cancelled, Parked, Report
from fleet.retry import backoff_ns
from fleet.wall_time import rfc3339, wall_ns_of


@pytest.fixture
def world() -> JobWorld:
    return JobWorld()


def endings(world: JobWorld) -> Counter[str]:
    """How often each job ended, by the events."""
    facts = [fact for fact in world.store.take_facts() if isinstance(fact, Fact) and fact.announced]
    return Counter(fact.job.job_id for fact in facts if fact.job.status in TERMINAL)


def test_of_ten_thousand_cancels_that_race_a_complete_each_leaves_one_outcome_and_tells_which() -> None:
    world, rng = JobWorld(max_finished=20_000), Random(7)
    outcomes: Counter[tuple[str, bool]] = Counter()
    for number in range(10_000):
        job_id = f"j{number}"
        world.submit(job_id)
        token = world.grant().token
        world.say(E.START, token, job_id)
        said = race(world, job_id, token, rng)
        job = world.store.get(job_id)
        assert job.status in TERMINAL
        for heard in said:
            if isinstance(heard, Cancelled):
                assert heard.cancelled is (heard.previous_status == "running")
            elif isinstance(heard, Job):
                assert heard.status == job.status
            else:
                assert (type(heard), heard.code) == (Conflict, "terminal")
        outcomes[job.status, job.cancel_requested] += 1
    assert set(endings(world).values()) == {1}
    assert set(outcomes) == {("completed", False), ("completed", True), ("cancelled", True)}


def race(world: JobWorld, job_id: str, token: int, rng: Random) -> list[Any]:
    """The user cancels twice, the robot completes, obeys, and repeats itself, in any order."""
    acts = [
        lambda: world.store.cancel(job_id, *world.clock),
        lambda: world.store.cancel(job_id, *world.clock),
        lambda: world.say(E.COMPLETE, token, job_id),
        lambda: world.say(E.COMPLETE, token, job_id),
        lambda: world.say(E.CANCELLED, token, job_id),
    ]
    rng.shuffle(acts)
    heard: list[Any] = []
    for act in acts:
        try:
            heard.append(act())
        except FleetError as refusal:
            if refusal.code != "wrong_state":  # it obeys what nobody asked for yet
                heard.append(refusal)
    return heard


@pytest.mark.parametrize("claimed_first", [True, False])
def test_a_job_that_is_claimed_at_the_instant_in_which_it_expires_has_one_outcome(
    world: JobWorld, claimed_first: bool
) -> None:
    world.submit("j", pending_timeout_s=2)
    world.now_ns = 2 * SECOND
    if claimed_first:
        assert world.granted() == ["j"]
        world.store.tick(*world.clock)
        assert world.store.get("j").status == "claimed"
    else:
        world.store.tick(*world.clock)
        assert world.granted() == []
        assert (world.store.get("j").status, world.store.get("j").error) == ("failed", "expired")
    world.after(5_000)
    assert world.store.get("j").status == ("claimed" if claimed_first else "failed")
    assert sum(endings(world).values()) == (0 if claimed_first else 1)


def test_a_waiting_robot_does_not_get_a_job_that_expires_in_the_same_tick(world: JobWorld) -> None:
    """What becomes due and what expires in one tick: first its time comes, then it may be taken."""
    world.submit("j", pending_timeout_s=2, required_capabilities=["arm"])
    world.now_ns = 2 * SECOND
    assert isinstance(world.ask(wait_ms=9_000), Parked)
    world.store.tick(*world.clock)
    assert (world.store.get("j").status, world.answers()) == ("failed", [])


def test_a_storm_of_ten_thousand_failures_comes_back_spread_out(world: JobWorld) -> None:
    names = [f"j{n}" for n in range(10_000)]
    for start in range(0, len(names), 1_000):
        world.submit(*names[start : start + 1_000], max_attempts=2)
    while granted := world.granted(limit=1_000, max_concurrent_jobs=20_000):
        for job_id in granted:
            world.say(E.FAIL, 1, job_id, error="jam")
    waits = [wall_ns_of(world.store.get(job_id).not_before or "") - EPOCH_NS for job_id in names]
    tenths = Counter(wait * 10 // SECOND for wait in waits)
    assert max(waits) <= SECOND
    assert [tenths[n] > 800 for n in range(10)] == [True] * 10  # of 1,000 each, if none were chance
    world.after(500)
    assert 4_500 < world.store.depth() < 5_500


@pytest.mark.parametrize("attempt", [-1, 0, 1, 20, 10**6, 10**18])
def test_a_backoff_is_clamped_whatever_the_attempt(attempt: int) -> None:
    limits = Limits()
    for seed in range(50):
        assert 0 <= backoff_ns(attempt, limits, Random(seed)) <= limits.backoff_max_ms * 1_000_000


def test_a_job_that_has_failed_a_million_times_still_waits_no_longer_than_the_longest(
    world: JobWorld,
) -> None:
    world.submit("j", max_attempts=1_000)
    token = world.grant().token
    entry = world.store._jobs["j"]
    entry.job = Job(**{f: getattr(entry.job, f) for f in Job.__struct_fields__} | {"attempt": 999})
    job = world.say(E.FAIL, token)
    assert wall_ns_of(job.not_before or "") - EPOCH_NS <= 300 * SECOND


def test_a_job_that_kills_every_robot_is_a_dead_letter_after_its_attempts(world: JobWorld) -> None:
    world.submit("poison", max_attempts=4)
    for attempt in range(1, 5):
        while not (granted := world.granted(f"robot-{attempt}")):
            world.after(1_000)
        assert granted == ["poison"]
        assert world.store.get("poison").attempt == attempt
        world.after(30_000)  # nobody is heard of again
    job = world.store.get("poison")
    assert (job.status, job.dead_letter, job.error, job.attempt) == ("failed", True, "lease expired", 4)
    world.after(3_600_000)
    assert world.granted("robot-5") == []


@pytest.mark.parametrize("result", [{"a": {1, 2}.__iter__()}, object(), float, 1j])
def test_a_result_that_is_no_json_is_an_error_of_that_report_alone(world: JobWorld, result: Any) -> None:
    token = world.running()
    world.store.take_facts()
    before = world.store.get("j")
    with pytest.raises(PeerFault) as refused:
        world.say(E.COMPLETE, token, result=result)
    assert refused.value.code == "bad_result"
    assert world.store.get("j") is before
    assert world.store.take_facts() == []
    assert world.say(E.COMPLETE, token, result={"n": 1}).result == {"n": 1}


def test_a_result_that_refers_to_itself_is_an_error_of_that_report_alone(world: JobWorld) -> None:
    token = world.running()
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PeerFault):
        world.say(E.COMPLETE, token, result=endless)
    assert world.store.get("j").status == "running"


def test_of_progress_the_history_has_a_bounded_number_and_the_job_the_newest() -> None:
    world = JobWorld(max_progress_events=3)
    token = world.running()
    world.store.take_facts()
    for percent in (10, 20, 30, 40, 50):
        job = world.say(E.PROGRESS, token, progress=percent, current_node=f"n{percent}", message="on")
        assert job.progress == percent
    facts = [fact for fact in world.store.take_facts() if isinstance(fact, Fact)]
    assert [fact.recorded for fact in facts] == [True, True, True, False, False]
    assert [fact.said.current_node for fact in facts if fact.said] == ["n10", "n20", "n30"]
    assert facts[-1].job.progress == 50
    world.say(E.COMPLETE, token)
    [done] = world.store.take_facts()
    assert isinstance(done, Fact)
    assert (done.number, done.part) == (facts[0].number + 1, 0)


def test_progress_that_is_said_again_is_in_the_history_once() -> None:
    world = JobWorld()
    token = world.running()
    world.store.take_facts()
    for _ in range(2):
        for percent, message in ((10, "on"), (10, "on"), (10, "and on"), (20, "and on")):
            world.after(1_000)
            job = world.say(E.PROGRESS, token, progress=percent, message=message)
            assert (job.progress, job.last_progress_at) == (percent, rfc3339(EPOCH_NS + world.now_ns))
    facts = [fact for fact in world.store.take_facts() if isinstance(fact, Fact)]
    assert [fact.recorded for fact in facts] == [True, False, True, True] * 2


def test_the_next_robot_may_say_what_the_last_one_said() -> None:
    world = JobWorld()
    token = world.running()
    world.say(E.PROGRESS, token, progress=10)
    world.say(E.RELEASE, token)
    token = world.grant().token
    world.store.take_facts()
    world.say(E.PROGRESS, token, progress=10)
    [said] = world.store.take_facts()
    assert isinstance(said, Fact)
    assert said.recorded


def test_progress_beyond_the_bound_is_no_event_of_the_feed() -> None:
    """Also right after one: the numbers of the feed are those of the journal."""
    world = JobWorld(max_progress_events=1)
    token = world.running()
    world.say(E.PROGRESS, token, progress=10)
    world.submit("another")
    world.store.take_facts()
    world.say(E.PROGRESS, token, progress=20)
    [unsaid] = world.store.take_facts()
    assert isinstance(unsaid, Fact)
    assert (unsaid.announced, unsaid.job.progress) == (False, 20)


def test_deadlines_hold_on_the_clock_of_the_store_and_not_on_the_wall() -> None:
    """A wall clock that jumps by a day ends no lease."""
    store = JobStore(Limits(), Random(1))
    world = JobWorld()
    world.store = store
    token = world.running(timeout_s=60)
    store.tick(world.now_ns, EPOCH_NS + 86_400 * SECOND)
    assert store.get("j").status == "running"
    assert store.report(Report(E.COMPLETE, "j", "r", token), world.now_ns, EPOCH_NS).status == "completed"
