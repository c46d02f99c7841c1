"""Who asks again gets the first reply, and nothing is done twice."""

from __future__ import annotations

from typing import Any

import pytest
from job_world import EPOCH_NS, E, JobWorld

from fleet.errors import Full, Misuse, PeerFault
from fleet.job import Job
from fleet.job_record import Announcement, Fact
from fleet.kept_replies import KeptReply
from fleet.limits import SECOND, Limits
from fleet.messages import Cancel, JobSpec, Retry, Submit
from fleet.wall_time import rfc3339

DAY_MS = 86_400_000


@pytest.fixture
def world() -> JobWorld:
    return JobWorld()


def keyed(world: JobWorld, *job_ids: str, key: str = "k", meaning: str = "m", **spec: Any) -> list[Job]:
    specs = [JobSpec(name="n", **spec)] * len(job_ids)
    command = Submit(list(job_ids), specs, request_id=key, fingerprint=meaning)
    return world.store.submit(command, *world.clock)


def settle(world: JobWorld) -> list[Any]:
    """What was decided is in the journal now."""
    changes = world.store.take_facts()
    facts = [change for change in changes if isinstance(change, Fact | Announcement)]
    world.store.replies.committed(len(changes) - len(facts))
    if facts:
        world.store.trim(facts[-1].number + 1)
    return changes


def test_the_same_key_gets_the_first_jobs_as_they_were_and_no_others(world: JobWorld) -> None:
    later = rfc3339(EPOCH_NS + 5 * SECOND)
    first = keyed(world, "a", "b", not_before=later, payload={"x": 1}, max_attempts=9)
    world.after(5_000)
    token = world.grant().token
    world.say(E.FAIL, token, "a", error="jam")
    world.store.take_facts()
    assert keyed(world, "c", "d", not_before=later) == first
    assert [job.status for job in first] == ["pending", "pending"]
    assert world.store.get("a") != first[0]
    assert world.store.take_facts() == []
    assert world.store.counts(*world.clock).pending == 2


def test_a_reply_is_in_the_journal_with_its_jobs(world: JobWorld) -> None:
    keyed(world, "a", "b")
    *facts, kept = settle(world)
    assert [fact.job.job_id for fact in facts] == ["a", "b"]
    assert kept == KeptReply("k", "m", EPOCH_NS + 86_400 * SECOND, ["a", "b"])


def test_another_request_with_the_same_key_is_refused_and_changes_nothing(world: JobWorld) -> None:
    keyed(world, "a")
    world.store.take_facts()
    with pytest.raises(PeerFault) as refused:
        keyed(world, "b", meaning="other")
    assert refused.value.code == "idempotency_key_reused"
    assert world.store.take_facts() == []
    assert world.store.depth() == 1


def test_a_door_that_sends_its_command_again_gets_the_jobs_that_it_named(world: JobWorld) -> None:
    """Whatever became of the key meanwhile."""
    first = keyed(world, "a")
    assert keyed(world, "a") == first
    world.after(DAY_MS)
    assert keyed(world, "a") == first
    assert world.store.depth() == 1


def test_a_key_may_serve_again_after_a_day(world: JobWorld) -> None:
    keyed(world, "a")
    world.after(DAY_MS - 1)
    assert [job.job_id for job in keyed(world, "b")] == ["a"]
    world.after(1)
    assert [job.job_id for job in keyed(world, "c", meaning="other")] == ["c"]
    assert [job.job_id for job in keyed(world, "d", meaning="other")] == ["c"]


def test_a_refused_submission_leaves_its_key_unused() -> None:
    world = JobWorld(max_pending=2)
    with pytest.raises(Full) as refused:
        keyed(world, "a", "b", "c")
    assert (refused.value.code, refused.value.retry_after_s) == ("queue_full", 1.0)
    with pytest.raises(PeerFault):
        keyed(world, "a", not_before="soon")
    assert world.store.take_facts() == []
    assert [job.job_id for job in keyed(world, "d", "e", meaning="other")] == ["d", "e"]


def test_a_bad_job_in_a_list_leaves_no_part_of_it_behind(world: JobWorld) -> None:
    specs = [JobSpec(name="n"), JobSpec(name="n", not_before="soon")]
    with pytest.raises(PeerFault):
        world.store.submit(Submit(["a", "b"], specs), *world.clock)
    assert world.store.take_facts() == []
    [job] = world.store.submit(Submit(["a"], [JobSpec(name="n", priority=3)]), *world.clock)
    assert job.priority == 3


def test_keys_beyond_the_bound_are_refused_until_others_expire() -> None:
    world = JobWorld(max_replies=2, idempotency_s=60)
    keyed(world, "a", key="1")
    keyed(world, "b", key="2")
    with pytest.raises(Full) as refused:
        keyed(world, "c", key="3")
    assert (refused.value.code, refused.value.retry_after_s) == ("too_many_keys", 60.0)
    assert [job.job_id for job in keyed(world, "d", key="1")] == ["a"]
    world.submit("without")
    world.after(120_000)
    keyed(world, "c", key="3")
    assert len(world.store.replies) == 1


def test_who_has_no_key_is_not_refused_for_the_keys_of_others() -> None:
    world = JobWorld(max_replies=1)
    keyed(world, "a", key="1")
    world.submit("b")
    for job_id in ("a", "b"):
        assert world.store.cancel_once(Cancel(job_id, request_id=f"cancel {job_id}"), *world.clock).cancelled
    assert len(world.store.replies) == 1


def test_a_retry_that_is_repeated_makes_one_job(world: JobWorld) -> None:
    world.submit("j")
    world.store.cancel("j", *world.clock)
    retry = Retry("j", "k")
    first = world.store.retry(retry, *world.clock)
    world.store.take_facts()
    assert world.store.retry(retry, *world.clock) == first
    assert world.store.take_facts() == []
    assert world.store.get("j").retried_by == "k"


def test_a_retry_with_a_key_makes_one_job_whatever_id_it_brings(world: JobWorld) -> None:
    world.submit("j")
    world.store.cancel("j", *world.clock)
    one = world.store.retry(Retry("j", "k", request_id="key", fingerprint="m"), *world.clock)
    two = world.store.retry(Retry("j", "l", request_id="key", fingerprint="m"), *world.clock)
    assert (one.job_id, two) == ("k", one)
    assert world.store.depth() == 1


def test_a_cancel_that_is_repeated_gets_its_first_reply_after_the_job_has_ended(world: JobWorld) -> None:
    token = world.running()
    cancel = Cancel("j", request_id="c")
    first = world.store.cancel_once(cancel, *world.clock)
    world.say(E.CANCELLED, token)
    world.store.take_facts()
    assert (first.cancelled, first.previous_status) == (True, "running")
    assert world.store.cancel_once(cancel, *world.clock) == first
    assert world.store.take_facts() == []
    late = world.store.cancel_once(Cancel("j", request_id="d"), *world.clock)
    assert (late.cancelled, late.previous_status) == (False, "cancelled")


def test_what_a_door_names_itself_is_kept_for_ten_minutes(world: JobWorld) -> None:
    world.submit("j")
    world.store.cancel_once(Cancel("j", request_id="c"), *world.clock)
    [kept] = [change for change in world.store.take_facts() if isinstance(change, KeptReply)]
    assert kept.expires_wall_ns == EPOCH_NS + 600 * SECOND
    world.after(600_000)
    assert not world.store.cancel_once(Cancel("j", request_id="c"), *world.clock).cancelled


def test_old_replies_leave_memory_once_they_are_in_the_journal_and_come_back() -> None:
    world = JobWorld(max_remembered=2)
    replies = world.store.replies
    jobs = {key: keyed(world, f"j{key}", key=key) for key in "abcdef"}
    assert not any(replies.missing(key) for key in "abcdef")
    kept = {change.request_id: change for change in settle(world) if isinstance(change, KeptReply)}
    for key in "gh":  # two generations later
        keyed(world, f"j{key}", key=key)
        settle(world)
    assert replies.missing("a")
    assert replies.generation == 3
    assert len(replies) == 8
    replies.remember(kept["a"])
    assert keyed(world, "other", key="a") == jobs["a"]


def test_what_is_not_in_the_journal_yet_is_not_forgotten() -> None:
    world = JobWorld(max_remembered=2)
    for key in "abc":
        keyed(world, f"j{key}", key=key)
    settle(world)
    replies = world.store.replies
    for key in "defg":
        keyed(world, f"j{key}", key=key)
    replies.committed(1)  # from now on these are the older generation
    for key in "hi":
        keyed(world, f"j{key}", key=key)
    replies.committed(1)
    assert not any(replies.missing(key) for key in "fghi")
    replies.committed(2)
    assert [key for key in "defghi" if replies.missing(key)] == list("defg")


def test_jobs_that_a_replay_shows_are_asked_for(world: JobWorld) -> None:
    """They may be gone from memory."""
    keyed(world, "a", "b")
    command = Submit(["c", "d"], [JobSpec(name="n")] * 2, request_id="k", fingerprint="m")
    records = [world.store._jobs.pop(job_id).record() for job_id in ("a", "b")]
    assert world.store.forgotten([command]) == {"a", "b"}
    for record in records:
        world.store.remember(record)
    assert world.store.forgotten([command]) == set()
    assert world.store.unanswered([command, Cancel("a", request_id="c"), Cancel("a")]) == {"c"}


def test_keys_that_outlive_their_jobs_are_refused_as_a_setting() -> None:
    with pytest.raises(Misuse, match="retention_s"):
        Limits(retention_s=86_399)
    Limits(retention_s=86_400)


def test_what_has_expired_is_looked_for_at_least_every_second() -> None:
    with pytest.raises(Misuse, match="tick_ms"):
        Limits(tick_ms=1_001, depth_interval_ms=2_000)
    Limits(tick_ms=1_000, depth_interval_ms=2_000)
