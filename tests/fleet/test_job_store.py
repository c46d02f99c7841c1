"""What the job store does, by example."""

from __future__ import annotations

import pytest
from job_world import EPOCH_NS
from job_world import JobWorld as World

from fleet.errors import Busy, Conflict, Forbidden, Full, Misuse, NotFound, PeerFault
from fleet.job import JobEvent
from fleet.job_record import Fact
from fleet.limits import MS, SECOND, Limits
from fleet.messages import (
    LATE_ADMISSION,
    Answer,
    Beats,
    EndClaim,
    GiveBack,
    JobSpec,
    JobToken,
    Parked,
    Retry,
    Submit,
)
from fleet.wall_time import rfc3339

E = JobEvent


@pytest.fixture
def world() -> World:
    return World()


def test_a_stale_token_changes_nothing(world: World) -> None:
    world.submit("j")
    old = world.grant("first").token
    world.after(30_000)
    new = world.grant("second").token
    before = world.store.get("j")
    counts = world.store.counts(*world.clock)
    world.store.take_facts()
    for robot in ("first", "second"):
        with pytest.raises(Conflict) as refused:
            world.say(E.START, old, robot=robot)
        assert refused.value.code == "stale_token"
    assert new > old
    assert world.store.get("j") is before
    assert world.store.counts(*world.clock) == counts
    assert world.store.take_facts() == []


def test_another_robots_job_is_forbidden_and_stays(world: World) -> None:
    token = world.running()
    before = world.store.get("j")
    with pytest.raises(Forbidden) as refused:
        world.say(E.COMPLETE, token, robot="thief")
    assert refused.value.code == "not_yours"
    assert world.store.get("j") is before


def test_a_repeated_report_returns_the_same_job(world: World) -> None:
    token = world.running()
    done = world.say(E.COMPLETE, token, result={"n": 1})
    world.store.take_facts()
    assert world.say(E.COMPLETE, token, result={"n": 2}) is done
    assert done.result == {"n": 1}
    assert world.store.take_facts() == []


def test_a_start_said_again_after_the_end_changes_nothing(world: World) -> None:
    token = world.running()
    done = world.say(E.COMPLETE, token)
    world.store.take_facts()
    assert world.say(E.START, token) is done
    with pytest.raises(Conflict) as refused:
        world.say(E.START, token, robot="other")
    assert refused.value.code == "stale_token"
    assert world.store.take_facts() == []


def test_another_outcome_of_a_finished_job_is_refused_as_terminal(world: World) -> None:
    token = world.running()
    done = world.say(E.COMPLETE, token)
    with pytest.raises(Conflict, match="completed does not admit fail") as refused:
        world.say(E.FAIL, token)
    assert refused.value.code == "terminal"
    assert world.store.get("j") is done


def test_a_robot_cannot_report_what_only_people_or_time_may(world: World) -> None:
    token = world.running()
    for event in (E.CANCEL, E.LEASE_EXPIRED, E.TIMEOUT, E.CLAIM):
        with pytest.raises(PeerFault):
            world.say(event, token)
    assert world.store.get("j").status == "running"


def test_a_complete_that_beats_the_cancel_wins(world: World) -> None:
    token = world.running()
    assert world.store.cancel("j", *world.clock).cancelled
    assert world.say(E.COMPLETE, token).status == "completed"
    world.after(60_000)
    assert world.store.get("j").status == "completed"
    late = world.store.cancel("j", *world.clock)
    assert (late.cancelled, late.previous_status) == (False, "completed")


def test_a_robot_that_obeys_a_cancel_ends_the_job(world: World) -> None:
    token = world.running()
    world.store.cancel("j", *world.clock)
    assert world.store.outbox("d", 0, 0, world.now_ns).cancels == [("r", "j")]
    assert world.store.beats(Beats("r", [JobToken("j", token)]), world.now_ns) == ["j"]
    assert world.say(E.CANCELLED, token).status == "cancelled"


def test_a_cancel_that_nobody_obeys_holds_after_its_grace_and_voids_the_token(world: World) -> None:
    token = world.running()
    world.store.cancel("j", *world.clock)
    world.after(9_999)
    assert world.store.get("j").status == "running"
    world.after(1)
    assert world.store.get("j").status == "cancelled"
    with pytest.raises(Conflict) as refused:
        world.say(E.COMPLETE, token)
    assert refused.value.code == "terminal"


def test_a_lost_lease_costs_no_wait_once_then_a_backoff_then_the_dead_letter(world: World) -> None:
    world.submit("j", max_attempts=3)
    world.grant()
    world.after(29_999)
    assert world.store.get("j").status == "claimed"
    world.after(1)
    assert world.store.get("j").status == "pending"
    assert (world.store.depth(), world.store.get("j").not_before) == (1, None)
    world.grant()
    world.after(30_000)
    assert (world.store.get("j").status, world.store.depth()) == ("pending", 0)
    assert world.store.get("j").not_before is not None
    assert world.granted() == []
    world.after(2_000)
    world.grant()
    world.after(30_000)
    job = world.store.get("j")
    assert (job.status, job.dead_letter, job.attempt, job.error) == ("failed", True, 3, "lease expired")


def test_a_heartbeat_that_names_the_job_extends_its_lease(world: World) -> None:
    token = world.running()
    for _ in range(3):
        world.after(20_000)
        assert world.store.beats(Beats("r", [JobToken("j", token)]), world.now_ns) == []
    assert world.store.get("j").status == "running"
    world.after(30_000)
    assert world.store.get("j").status == "pending"


@pytest.mark.parametrize(
    ("robot", "job_id", "beside"),
    [("r", "j", -1), ("r", "j", 1), ("s", "j", 0), ("r", "k", 0), ("r", "none", 0)],
)
def test_a_heartbeat_with_another_token_job_or_robot_extends_no_lease(
    world: World, robot: str, job_id: str, beside: int
) -> None:
    """`k` is another robot's, and has another token."""
    world.submit("k")
    world.grant("t")
    world.submit("j")
    world.say(E.RELEASE, world.grant().token)
    token = world.grant().token
    world.after(20_000)
    world.store.beats(Beats(robot, [JobToken(job_id, token + beside)]), world.now_ns)
    world.after(9_999)
    assert [world.store.get(each).status for each in "jk"] == ["claimed", "claimed"]
    world.after(1)
    assert [world.store.get(each).status for each in "jk"] == ["pending", "pending"]


def test_a_job_past_its_timeout_ends_failed_with_that_reason(world: World) -> None:
    world.running(timeout_s=2)
    world.after(1_999)
    assert world.store.outbox("d", 0, 0, world.now_ns).cancels == []
    world.after(1)
    assert world.store.outbox("d", 0, 0, world.now_ns).cancels == [("r", "j")]
    assert world.store.get("j").status == "running"
    world.after(10_000)
    job = world.store.get("j")
    assert (job.status, job.error, job.dead_letter) == ("failed", "timeout", True)


def test_payloads_of_jobs_to_be_done_have_a_bound() -> None:
    world = World(max_live_bytes=2_000)
    world.submit("j", "k", payload={"x": "y" * 1_000})
    with pytest.raises(Full) as refused:
        world.submit("l")
    assert (refused.value.code, "2000 bytes" in refused.value.detail) == ("queue_full", True)
    assert world.store.counts(*world.clock).pending == 2
    world.store.cancel("k", *world.clock)
    world.submit("l")
    world.say(E.START, world.grant().token, "j")
    world.say(E.COMPLETE, 1, "j", result="r" * 5_000)
    world.submit("m", payload={"x": "y" * 1_900})
    assert world.store.depth() == 2


def test_a_job_that_is_asked_to_stop_for_two_reasons_has_no_more_time(world: World) -> None:
    world.running(timeout_s=9)
    world.store.cancel("j", *world.clock)
    world.after(9_000)
    assert world.store.get("j").status == "running"
    world.after(1_000)
    assert world.store.get("j").status == "failed"
    world.submit("k", timeout_s=1)
    token = world.grant().token
    world.say(E.START, token, "k")
    world.after(1_000)
    world.after(9_000)
    world.store.cancel("k", *world.clock)
    world.after(1_000)
    assert world.store.get("k").status == "failed"


def test_a_robot_that_stops_a_late_job_leaves_it_failed(world: World) -> None:
    token = world.running(timeout_s=1)
    world.after(1_000)
    job = world.say(E.CANCELLED, token)
    assert (job.status, job.error) == ("failed", "timeout")


def test_a_job_that_nobody_takes_in_time_expires(world: World) -> None:
    world.submit("j", pending_timeout_s=2, not_before=rfc3339(EPOCH_NS + 5_000 * MS))
    world.after(5_000)
    world.after(1_999)
    assert world.store.get("j").status == "pending"
    world.after(1)
    job = world.store.get("j")
    assert (job.status, job.error, job.dead_letter) == ("failed", "expired", True)
    assert world.store.depth() == 0


def test_not_before_holds_a_job_back(world: World) -> None:
    world.submit("j", not_before=rfc3339(EPOCH_NS + 1_000 * MS))
    world.after(999)
    assert (world.store.depth(), world.granted()) == (0, [])
    assert world.store.counts(*world.clock).pending == 1
    world.after(1)
    assert (world.store.depth(), world.granted()) == (1, ["j"])


def test_an_urgent_job_overtakes_until_age_outweighs_it(world: World) -> None:
    world.submit("old", priority=10)
    world.after(119_999)
    world.submit("urgent", priority=8)
    world.after(1)
    world.submit("tied", priority=8)
    world.after(1)
    world.submit("late", priority=8)
    assert world.granted(limit=5) == ["urgent", "old", "tied", "late"]


def test_a_job_goes_only_to_a_robot_that_has_what_it_needs(world: World) -> None:
    world.submit("j", environment="e", required_capabilities=["arm", "eye"])
    assert world.granted("blind", capabilities=["arm"]) == []
    assert world.granted("away", capabilities=["arm", "eye"], environment="f") == []
    assert world.granted("able", capabilities=["eye", "leg", "arm"]) == ["j"]


def test_the_robot_that_has_waited_longest_is_served_first(world: World) -> None:
    for robot, skills in (("one", ["x"]), ("two", []), ("three", ["x"])):
        assert isinstance(world.ask(robot, wait_ms=4_000, capabilities=skills), Parked)
        world.after(1)
    world.submit("a")
    world.submit("b", "c")
    assert world.answers() == [("one", ["a"]), ("two", ["b"]), ("three", ["c"])]


def test_a_repeated_claim_gets_the_same_jobs_and_tokens(world: World) -> None:
    world.submit("a", "b", "c")
    first = world.ask(limit=2, request_id="q")
    world.store.take_facts()
    assert world.ask(limit=2, request_id="q") == first
    assert isinstance(first, Answer)
    assert len(first.grants) == 2
    assert world.store.take_facts() == []
    assert world.store.depth() == 1


def given_back(world: World, call: int, door: str = "d", token: int = 1) -> str:
    world.store.give_back(GiveBack(door, "r", call, "j", token), *world.clock)
    return world.store.get("j").status


def test_a_grant_of_which_its_robot_never_heard_goes_back_uncounted(world: World) -> None:
    world.submit("j")
    assert world.granted(call=4) == ["j"]
    assert given_back(world, 4, door="other") == "claimed"
    assert given_back(world, 4, token=2) == "claimed"
    assert given_back(world, 4) == "pending"
    assert world.store.get("j").attempt == 0
    assert given_back(world, 4) == "pending"


@pytest.mark.parametrize(("door", "call"), [("d", 5), ("other", 1)])
def test_a_grant_that_its_robot_was_told_when_it_asked_again_does_not_go_back(
    world: World, door: str, call: int
) -> None:
    world.submit("j")
    assert world.granted(request_id="q", call=4) == ["j"]
    assert world.granted(request_id="q", call=call, door=door) == ["j"]
    assert given_back(world, 4) == "claimed"


def test_a_grant_that_went_back_is_not_told_to_a_robot_that_asks_again(world: World) -> None:
    world.submit("j")
    assert world.granted(request_id="q", call=4) == ["j"]
    given_back(world, 4)
    assert world.granted(request_id="q", call=5) == []


def test_a_new_claim_ends_the_parked_one_with_nothing(world: World) -> None:
    world.ask(wait_ms=4_000)
    world.ask(wait_ms=4_000)
    assert world.answers() == [("r", [])]
    world.submit("j")
    assert world.answers() == [("r", []), ("r", ["j"])]


def test_a_full_robot_gets_no_more(world: World) -> None:
    world.submit("a", "b", "c")
    assert world.granted(limit=3, max_concurrent_jobs=2) == ["a", "b"]
    with pytest.raises(Conflict) as refused:
        world.ask(max_concurrent_jobs=2)
    assert refused.value.code == "no_free_slot"
    assert world.store.depth() == 1


def test_a_silent_door_loses_its_claims_after_five_seconds(world: World) -> None:
    world.ask("kept", wait_ms=30_000, door="heard")
    world.ask("lost", wait_ms=30_000, door="silent")
    world.after(5_000)
    world.store.outbox("heard", 0, 0, world.now_ns)
    world.submit("a")
    assert world.store.get("a").robot_id == "kept"
    world.after(1)
    world.submit("b")
    assert world.store.get("b").status == "pending"
    assert world.answers("silent") == []


def test_a_door_within_five_seconds_keeps_its_claims(world: World) -> None:
    world.ask("r", wait_ms=30_000)
    world.after(5_000)
    world.submit("j")
    assert world.store.get("j").robot_id == "r"


def test_a_wait_ends_with_an_empty_answer(world: World) -> None:
    assert isinstance(world.ask(wait_ms=2_000), Parked)
    world.after(1_999)
    assert world.answers() == []
    world.after(1)
    assert world.answers() == [("r", [])]
    world.submit("j")
    assert world.store.get("j").status == "pending"


def test_what_a_door_confirms_it_does_not_see_again(world: World) -> None:
    world.ask(wait_ms=1_000)
    world.after(1_000)
    page = world.store.outbox("d", 0, 0, world.now_ns)
    assert len(page.answers) == 1
    assert world.store.outbox("d", 0, 0, world.now_ns) == page
    assert world.store.outbox("d", page.epoch, page.cursor, world.now_ns).answers == []


def test_a_door_that_comes_back_learns_it_by_the_epoch_and_misses_no_answer(world: World) -> None:
    """Its old cursor means nothing to the new numbering."""
    world.ask("one", wait_ms=1_000)
    world.after(1_000)
    before = world.store.outbox("d", 0, 0, world.now_ns)
    world.after(5_001)
    world.ask("two", wait_ms=1_000)
    world.after(1_000)
    after = world.store.outbox("d", before.epoch, before.cursor, world.now_ns)
    assert after.epoch != before.epoch
    assert [answer.robot_id for answer in after.answers] == ["two"]


def test_the_bound_of_the_queue_refuses_all_or_nothing() -> None:
    world = World(max_pending=3)
    world.submit("a", "b")
    world.store.take_facts()
    with pytest.raises(Busy) as refused:
        world.submit("c", "d")
    assert (refused.value.code, refused.value.retry_after_s) == ("queue_full", 1.0)
    assert world.store.counts(*world.clock).pending == world.store.depth() == 2
    assert world.store.take_facts() == []
    with pytest.raises(NotFound):
        world.store.get("c")
    world.submit("c")
    assert world.store.depth() == 3


def test_a_bad_not_before_refuses_the_whole_submit(world: World) -> None:
    specs = [JobSpec(name="n"), JobSpec(name="n", not_before="soon")]
    with pytest.raises(PeerFault):
        world.store.submit(Submit(["a", "b"], specs), *world.clock)
    assert world.store.depth() == 0


def test_finished_jobs_are_evicted_at_the_bound_oldest_first() -> None:
    world = World(max_finished=2)
    world.submit("a", "b", "c", "kept")
    for job_id in ("b", "a", "c"):
        world.store.cancel(job_id, *world.clock)
    world.store.trim(len(world.store.take_facts()))
    with pytest.raises(NotFound):
        world.store.get("b")
    assert [world.store.get(job_id).status for job_id in ("a", "c", "kept")] == [
        "cancelled",
        "cancelled",
        "pending",
    ]


def test_what_is_not_committed_is_not_forgotten() -> None:
    """Nobody would find it: not in memory, and not in the journal yet."""
    world = World(max_finished=1)
    world.submit("a", "b")
    committed = len(world.store.take_facts())
    for job_id in ("a", "b"):
        world.store.cancel(job_id, *world.clock)
    world.store.trim(committed)
    assert world.store.get("a").status == "cancelled"
    world.store.trim(committed + 1)
    with pytest.raises(NotFound):
        world.store.get("a")


def test_a_store_that_is_only_read_forgets_too() -> None:
    """Jobs that somebody looks at come back into memory, though nothing is committed that would trim it."""
    world = World(max_finished=1)
    world.submit("a", "b", "c")
    for job_id in ("a", "b", "c"):
        world.store.cancel(job_id, *world.clock)
    ends = [fact.record for fact in world.store.take_facts()[3:] if isinstance(fact, Fact)]
    world.store.trim(6)
    for record in ends:
        world.store.remember(record)
    assert [world.store.get(name).status for name in ("a", "b", "c")] == ["cancelled"] * 3
    world.after(1)
    for name in ("a", "c"):
        with pytest.raises(NotFound):
            world.store.get(name)
    assert world.store.take_facts() == []


def test_a_failed_attempt_waits_and_keeps_its_error(world: World) -> None:
    token = world.running()
    job = world.say(E.FAIL, token, error="jam")
    assert (job.status, job.attempt, job.error, job.robot_id) == ("pending", 1, "jam", None)
    world.after(1_000)
    assert world.grant().job.attempt == 2


def test_a_failure_that_is_not_retryable_is_final(world: World) -> None:
    job = world.say(E.FAIL, world.running(), error="jam", retryable=False)
    assert (job.status, job.error, job.dead_letter) == ("failed", "jam", True)


def test_a_released_attempt_is_not_counted_and_waits_for_nothing(world: World) -> None:
    job = world.say(E.RELEASE, world.running(max_attempts=1))
    assert (job.status, job.attempt, world.store.depth()) == ("pending", 0, 1)
    assert world.grant().token == 2


def test_a_retry_is_a_new_job_that_names_the_old(world: World) -> None:
    world.submit("j", priority=3)
    with pytest.raises(Conflict, match="pending does not admit retry"):
        world.store.retry(Retry("j", "k"), *world.clock)
    world.store.cancel("j", *world.clock)
    job = world.store.retry(Retry("j", "k"), *world.clock)
    assert (job.job_id, job.retry_of, job.priority, job.status) == ("k", "j", 3, "pending")
    assert world.store.get("j").status == "cancelled"


def test_progress_is_kept_and_not_announced(world: World) -> None:
    token = world.running()
    world.store.take_facts()
    assert world.say(E.PROGRESS, token, progress=40.0).progress == 40.0
    assert [fact.announced for fact in world.store.take_facts()] == [False]


def test_the_counters_of_today_start_again_at_midnight(world: World) -> None:
    world.say(E.COMPLETE, world.running())
    assert world.store.counts(*world.clock).completed_today == 1
    world.after(24 * 3_600_000)
    assert world.store.counts(*world.clock).completed_today == 0


def test_a_robot_that_asks_again_keeps_its_place_in_the_line(world: World) -> None:
    for robot in ("one", "two"):
        world.ask(robot, wait_ms=9_000, request_id=robot)
        world.after(1)
    world.ask("one", wait_ms=9_000, request_id="one")
    world.submit("a")
    assert world.answers() == [("one", ["a"])]


def test_a_claim_that_is_ended_is_answered_with_no_job(world: World) -> None:
    world.ask("r", wait_ms=9_000, admission=6)
    for _ in range(2):
        world.store.end_claim(EndClaim("r", 7), world.now_ns)
    world.submit("j")
    assert world.answers() == [("r", [])]
    assert world.store.get("j").status == "pending"


def test_a_claim_admitted_before_its_robot_was_to_get_no_more_comes_too_late(world: World) -> None:
    world.submit("j")
    world.store.end_claim(EndClaim("r", 7), world.now_ns)
    with pytest.raises(Conflict) as refused:
        world.granted(admission=6)
    assert refused.value.code == LATE_ADMISSION
    assert world.granted(admission=7) == ["j"]


def test_a_claim_admitted_after_the_end_of_another_stays(world: World) -> None:
    world.ask("r", wait_ms=9_000, admission=7)
    world.store.end_claim(EndClaim("r", 7), world.now_ns)
    world.submit("j")
    assert world.answers() == [("r", ["j"])]


def test_a_repeated_claim_is_answered_as_before_though_its_robot_is_to_get_no_more(world: World) -> None:
    world.submit("j")
    assert world.granted(admission=6, request_id="q") == ["j"]
    world.store.end_claim(EndClaim("r", 7), world.now_ns)
    assert world.granted(admission=6, request_id="q") == ["j"]


def test_a_lease_is_as_long_as_the_registry_said_when_it_admitted_the_claim(world: World) -> None:
    world.submit("j")
    answer = world.ask(lease_ms=90_000)
    assert isinstance(answer, Answer)
    [grant] = answer.grants
    assert grant.lease_ms == 90_000
    world.after(60_000)
    world.say(E.START, grant.token)
    world.after(89_999)
    assert world.store.get("j").status == "running"
    world.after(1)
    assert world.store.get("j").status == "pending"


@pytest.mark.parametrize(("beat_ms", "lasts_ms"), [(0, 30_000), (6_000, 30_000), (180_000, 180_000)])
def test_a_heartbeat_extends_a_lease_by_what_the_registry_gives_and_never_by_less_than_was_told(
    world: World, beat_ms: int, lasts_ms: int
) -> None:
    token = world.running()
    world.after(10_000)
    assert world.store.beats(Beats("r", [JobToken("j", token)], beat_ms), world.now_ns) == []
    world.after(lasts_ms - 1)
    assert world.store.get("j").status == "running"
    world.after(1)
    assert world.store.get("j").status == "pending"


def test_a_late_heartbeat_does_not_stop_the_newer_grant_of_the_same_job(world: World) -> None:
    world.submit("j")
    old = world.grant().token
    world.say(E.RELEASE, old)
    new = world.grant().token
    assert world.store.beats(Beats("r", [JobToken("j", old)]), world.now_ns) == []
    assert world.store.beats(Beats("r", [JobToken("j", new)]), world.now_ns) == []
    assert world.store.beats(Beats("r", [JobToken("j", new + 1)]), world.now_ns) == ["j"]
    world.after(29_999)
    assert world.store.get("j").status == "claimed"


def test_what_is_cancelled_early_leaves_no_trace_in_the_queues() -> None:
    world = World(max_finished=10)
    world.submit("head", required_capabilities=["nobody"], priority=0)
    later = rfc3339(EPOCH_NS + 10**9 * SECOND)
    for number in range(5_000):
        for spec in ({"required_capabilities": ["nobody"], "pending_timeout_s": 9e6}, {"not_before": later}):
            name = f"j{number}{len(spec)}"
            world.submit(name, **spec)
            world.store.cancel(name, *world.clock)
    store = world.store
    alarms = (store._scheduled, store._deadlines)
    held = (*(len(a._heap) for a in alarms), sum(map(len, store._pending._heaps.values())))
    assert max(held) < 1_100
    assert store.depth() == 1


def test_finished_jobs_are_evicted_by_their_size_too() -> None:
    world = World(max_finished_bytes=1_000)
    for name in ("a", "b", "c"):
        world.submit(name, payload={"x": "y" * 300})
        world.say(E.COMPLETE, _started(world, name), name, result="z" * 100)
    world.store.trim(len(world.store.take_facts()))
    with pytest.raises(NotFound):
        world.store.get("a")
    assert world.store.get("b").status == world.store.get("c").status == "completed"


def _started(world: World, name: str) -> int:
    token = world.grant().token
    world.say(E.START, token, name)
    return token


def test_a_job_that_went_back_shows_no_times_of_its_dead_attempt(world: World) -> None:
    job = world.say(E.FAIL, world.running(), error="jam")
    assert (job.claimed_at, job.started_at, job.robot_id) == (None, None, None)


def test_times_that_clients_name_are_shown_in_the_form_of_the_wire(world: World) -> None:
    [job] = world.submit("j", not_before="2030-01-01T01:00:00+01:00")
    assert job.not_before == "2030-01-01T00:00:00.000Z"


def test_periods_that_contradict_each_other_are_refused() -> None:
    for wrong in ({"long_poll_ms": 2_501}, {"tick_ms": 51}):
        with pytest.raises(Misuse):
            Limits(**wrong)
