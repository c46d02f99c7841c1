"""The robot brain against a moving clock."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest

from fleet.limits import MS, SECOND
from fleet.messages import (
    Ack,
    CancelJob,
    ClaimJobs,
    Complete,
    Drain,
    Error,
    Fail,
    GrantedJob,
    Heartbeat,
    JobToken,
    Obeyed,
    Progress,
    Register,
    Resume,
    Start,
    Welcome,
)
from simulators.robot import (
    ConnectAt,
    Connected,
    Disconnected,
    Effect,
    Heard,
    RobotBrain,
    RobotProfile,
    Say,
    Sense,
    WakeAt,
    Woke,
)


class Bench:
    """A brain, a clock and everything it said."""

    def __init__(self, **profile: Any) -> None:
        self.brain = RobotBrain(RobotProfile(**{"failure_probability": 0.0, **profile}))
        self.rng = Random(7)
        self.now_ns = 0
        self.alarm_ns: int | None = None
        self.said: list[Any] = []

    def sense(self, heard: Sense) -> list[Any]:
        effects: list[Effect] = self.brain.decide(heard, self.now_ns, self.rng)
        for effect in effects:
            if isinstance(effect, WakeAt):
                self.alarm_ns = effect.at_ns
        said = [effect.message for effect in effects if isinstance(effect, Say)]
        self.said += said
        return said

    def hear(self, message: Any) -> list[Any]:
        return self.sense(Heard(message))

    def run(self, seconds: float) -> list[Any]:
        """Moves the clock through every alarm; what was said on the way."""
        before, end_ns = len(self.said), self.now_ns + int(seconds * SECOND)
        while self.alarm_ns is not None and self.alarm_ns <= end_ns:
            self.now_ns, self.alarm_ns = max(self.now_ns, self.alarm_ns), None
            self.sense(Woke())
        self.now_ns = end_ns
        return self.said[before:]

    def join(self, heartbeat_ms: int = 5_000) -> ClaimJobs:
        self.sense(Connected())
        return only(self.hear(Welcome(heartbeat_ms=heartbeat_ms)), ClaimJobs)

    def work(self, token: int = 1, job_id: str = "j") -> list[Any]:
        claim = self.join()
        return self.grant(claim, token, job_id)

    def grant(self, claim: ClaimJobs, token: int = 1, job_id: str = "j") -> list[Any]:
        assert claim.id is not None
        job = GrantedJob(job_id=job_id, name="x", token=token, lease_ms=30_000)
        return self.hear(Ack(id=claim.id, jobs=[job]))

    def finish(self) -> Complete:
        return only(self.run(30), Complete)

    def jobs(self) -> list[JobToken]:
        """What the next heartbeat lists."""
        return of(self.run(6), Heartbeat)[0].jobs


def of(messages: list[Any], kind: type[Any]) -> list[Any]:
    return [message for message in messages if isinstance(message, kind)]


def only(messages: list[Any], kind: type[Any]) -> Any:
    (message,) = of(messages, kind)
    return message


def test_a_robot_registers_when_it_connects_and_claims_when_it_is_welcome() -> None:
    bench = Bench(capabilities=["lift"], environment="hall", max_concurrent_jobs=3)
    register = only(bench.sense(Connected()), Register)
    assert (register.capabilities, register.environment) == (["lift"], "hall")
    claim = only(bench.hear(Welcome(heartbeat_ms=5_000)), ClaimJobs)
    assert (claim.limit, claim.wait_ms) == (3, 10_000)
    assert claim.id
    assert register.id
    assert claim.id != register.id


def test_heartbeats_keep_their_interval_within_a_tenth() -> None:
    bench = Bench()
    bench.join(heartbeat_ms=1_000)
    times = []
    while len(times) < 50:
        assert bench.alarm_ns is not None
        bench.now_ns = bench.alarm_ns
        times += [bench.now_ns] * len(of(bench.sense(Woke()), Heartbeat))
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert times[0] < 1_000 * MS
    assert 900 * MS <= min(gaps) < max(gaps) <= 1_100 * MS


def test_robots_welcomed_together_beat_apart() -> None:
    alarms = set()
    rng = Random(1)
    for _ in range(20):
        bench = Bench()
        bench.rng = rng
        bench.join()
        alarms.add(bench.alarm_ns)
    assert len(alarms) == 20


def waits_after(told_ms: int) -> list[int]:
    """How long twenty robots wait that are told another interval as the answer to a heartbeat."""
    waits, rng = [], Random(1)
    for _ in range(20):
        bench = Bench()
        bench.rng = rng
        bench.join(heartbeat_ms=1_000)
        while not of(bench.sense(Woke()), Heartbeat):
            assert bench.alarm_ns is not None
            bench.now_ns = bench.alarm_ns
        told_ns = bench.now_ns
        said = bench.hear(Welcome(heartbeat_ms=told_ms))
        while not of(said, Heartbeat):
            assert bench.alarm_ns is not None
            bench.now_ns = bench.alarm_ns
            said = bench.sense(Woke())
        waits.append((bench.now_ns - told_ns) // MS)
    return waits


@pytest.mark.parametrize("told_ms", [400, 5_000])
def test_robots_that_are_told_another_interval_together_beat_apart(told_ms: int) -> None:
    waits = waits_after(told_ms)
    assert told_ms * 0.5 <= min(waits) < told_ms * 0.8
    assert told_ms * 1.2 < max(waits) <= told_ms * 1.5


def test_a_robot_that_drains_claims_nothing_until_the_drain_is_over() -> None:
    bench = Bench()
    claim = bench.join()
    bench.hear(Drain())
    bench.hear(Ack(id=claim.id, jobs=[]))  # type: ignore[arg-type]
    assert not of(bench.run(60), ClaimJobs)
    assert of(bench.hear(Resume()), ClaimJobs)


def test_load_figures_wander_within_bounds_and_have_one_decimal() -> None:
    bench = Bench()
    bench.join(heartbeat_ms=1_000)
    beats = of(bench.run(500), Heartbeat)
    assert all(0 <= beat.cpu_percent <= 100 and beat.memory_mb >= 0 for beat in beats)
    assert all(round(beat.cpu_percent, 1) == beat.cpu_percent for beat in beats)
    assert len({beat.cpu_percent for beat in beats}) > 20


def test_a_granted_job_is_started_listed_completed_and_followed_by_a_claim() -> None:
    bench = Bench(service_mean_s=8.0)
    start = only(bench.work(token=4), Start)
    assert (start.job_id, start.token) == ("j", 4)
    bench.hear(Ack(id=start.id))
    said = bench.run(80)
    complete = only(said, Complete)
    beats = of(said, Heartbeat)
    assert beats
    assert all(beat.status == "busy" for beat in beats)
    assert beats[0].jobs == [JobToken("j", 4)]
    assert complete.result == {"ok": True}
    assert only(bench.hear(Ack(id=complete.id)), ClaimJobs)
    assert bench.brain.completed == 1
    assert of(bench.run(6), Heartbeat)[0].status == "idle"


def test_a_failing_robot_says_so_and_may_be_retried() -> None:
    bench = Bench(failure_probability=1.0)
    bench.work()
    fail = only(bench.run(30), Fail)
    bench.hear(Ack(id=fail.id))
    assert fail.retryable
    assert fail.error
    assert bench.brain.failed == 1


def test_a_full_robot_does_not_claim() -> None:
    bench = Bench(service_mean_s=1_000.0)
    assert not of(bench.work(), ClaimJobs)
    assert not of(bench.run(2), ClaimJobs)


def test_a_robot_with_a_slot_left_claims_for_that_slot() -> None:
    bench = Bench(max_concurrent_jobs=2, service_mean_s=1_000.0)
    bench.work()
    assert only(bench.run(0.2), ClaimJobs).limit == 1


def test_an_empty_claim_is_followed_by_another_but_no_faster_than_200_ms() -> None:
    bench = Bench()
    claim = bench.join()
    assert not of(bench.hear(Ack(id=claim.id, jobs=[])), ClaimJobs)
    assert not of(bench.run(0.199), ClaimJobs)
    second = only(bench.run(0.001), ClaimJobs)
    assert second.request_id != claim.request_id
    bench.run(10)
    assert of(bench.hear(Ack(id=second.id, jobs=[])), ClaimJobs)


def test_a_refused_claim_pauses_for_a_second() -> None:
    bench = Bench()
    bench.hear(Error(id=bench.join().id, code="unavailable", detail=""))
    assert not of(bench.run(0.999), ClaimJobs)
    assert of(bench.run(0.001), ClaimJobs)


@pytest.mark.parametrize(("code", "same"), [("unavailable", True), ("no_free_slot", False)])
def test_a_claim_of_which_nobody_knows_what_came_keeps_its_request_id(code: str, same: bool) -> None:
    bench = Bench()
    claim = bench.join()
    bench.hear(Error(id=claim.id, code=code, detail=""))
    again = only(bench.run(1), ClaimJobs)
    assert (again.request_id == claim.request_id) is same


def test_a_busy_robot_whom_nobody_knows_joins_again() -> None:
    bench = Bench(service_mean_s=1_000.0)
    bench.work()
    beat = of(bench.run(20), Heartbeat)[0]
    assert only(bench.hear(Error(id=beat.id, code="not_found", detail="")), Register)


def test_a_cancelled_job_is_dropped_and_the_robot_says_that_it_obeyed() -> None:
    bench = Bench(service_mean_s=1_000.0)
    bench.work(token=9)
    said = bench.hear(CancelJob(job_id="j"))
    obeyed = only(said, Obeyed)
    assert (obeyed.job_id, obeyed.token) == ("j", 9)
    assert bench.jobs() == []
    assert bench.hear(CancelJob(job_id="j")) == []


def test_a_draining_robot_finishes_its_job_and_claims_no_more() -> None:
    bench = Bench()
    bench.work()
    bench.hear(Drain())
    bench.hear(Ack(id=bench.finish().id))
    assert not of(bench.run(60), ClaimJobs)


@pytest.mark.parametrize("code", ["stale_token", "terminal", "not_found", "wrong_state"])
def test_a_job_that_the_server_no_longer_knows_is_dropped(code: str) -> None:
    bench = Bench(service_mean_s=1_000.0)
    start = only(bench.work(), Start)
    bench.hear(Error(id=start.id, code=code, detail=""))
    assert bench.jobs() == []


def test_a_report_that_the_server_could_not_take_is_said_again_after_a_second() -> None:
    bench = Bench()
    bench.work()
    complete = bench.finish()
    bench.hear(Error(id=complete.id, code="unavailable", detail=""))
    assert not of(bench.run(0.999), Complete)
    assert only(bench.run(0.001), Complete) == complete
    assert of(bench.hear(Ack(id=complete.id)), ClaimJobs)


def test_a_late_answer_about_an_old_token_does_not_touch_the_new_grant() -> None:
    bench = Bench(max_concurrent_jobs=2, service_mean_s=1_000.0)
    start = only(bench.work(token=1), Start)
    bench.grant(only(bench.run(0.2), ClaimJobs), token=2)
    bench.hear(Error(id=start.id, code="stale_token", detail=""))
    assert bench.jobs() == [JobToken("j", 2)]


def test_a_robot_keeps_its_job_through_a_lost_connection() -> None:
    bench = Bench(service_mean_s=1_000.0)
    bench.hear(Ack(id=only(bench.work(token=3), Start).id))
    bench.sense(Disconnected())
    bench.run(3)
    bench.sense(Connected())
    assert not of(bench.hear(Welcome(heartbeat_ms=5_000)), ClaimJobs)
    assert bench.jobs() == [JobToken("j", 3)]


def test_a_job_that_ended_while_offline_is_reported_after_reconnecting() -> None:
    bench = Bench()
    bench.work()
    bench.sense(Disconnected())
    assert bench.run(60) == []
    assert of(bench.sense(Connected()), Complete)


def test_a_robot_that_was_frozen_past_its_lease_drops_its_job_before_it_does_anything() -> None:
    """Its clock went on while it did not: somebody else may hold the job by now."""
    bench = Bench(service_mean_s=1_000.0)
    bench.hear(Ack(id=only(bench.work(), Start).id))
    bench.now_ns += 27 * SECOND
    said = bench.sense(Woke())
    assert of(said, Complete | Start) == []
    assert of(said, Heartbeat)[0].jobs == []
    assert bench.brain.fenced == 1


@pytest.mark.parametrize("answered", [True, False])
def test_only_answered_heartbeats_keep_a_job(answered: bool) -> None:
    bench = Bench(service_mean_s=1_000.0)
    bench.hear(Ack(id=only(bench.work(), Start).id))
    for _ in range(12):
        for beat in of(bench.run(5), Heartbeat):
            if answered and beat.id is not None:
                bench.hear(Ack(id=beat.id))
    assert (bench.jobs(), bench.brain.fenced) == (([JobToken("j", 1)], 0) if answered else ([], 1))


def test_an_answer_to_an_older_heartbeat_does_not_shorten_a_newer_lease() -> None:
    bench = Bench(service_mean_s=1_000.0, max_concurrent_jobs=2)
    bench.hear(Ack(id=only(bench.work(), Start).id))
    beat = of(bench.run(10), Heartbeat)[0]
    bench.grant(of(bench.said, ClaimJobs)[-1], 1, "k")
    bench.hear(Ack(id=beat.id or ""))
    bench.run(26)
    assert [work.job_id for work in bench.brain._works.values()] == ["k"]


def test_unanswered_reports_are_said_again_in_order_and_then_count_once() -> None:
    bench = Bench()
    start = only(bench.work(), Start)
    complete = bench.finish()
    bench.sense(Disconnected())
    said = bench.sense(Connected())
    assert said[1:] == [start, complete]
    bench.hear(Ack(id=start.id))
    bench.hear(Ack(id=complete.id))
    assert bench.brain.completed == 1
    assert of(bench.hear(Welcome(heartbeat_ms=5_000)), ClaimJobs)
    bench.sense(Disconnected())
    assert not of(bench.sense(Connected()), Complete)


def test_an_open_claim_is_said_again_with_its_request_id() -> None:
    bench = Bench()
    claim = bench.join()
    bench.sense(Disconnected())
    bench.run(5)
    assert bench.join() == claim
    assert only(bench.grant(claim), Start)


def test_reconnecting_backs_off_to_thirty_seconds_and_a_welcome_forgives() -> None:
    bench = Bench()
    waits = [bench.brain.decide(Disconnected(), 0, bench.rng) for _ in range(200)]
    delays = [effect.at_ns for (effect,) in waits if isinstance(effect, ConnectAt)]
    assert delays[0] <= SECOND
    assert delays[1] <= 2 * SECOND
    assert 25 * SECOND < max(delays) <= 30 * SECOND
    bench.join()
    (effect,) = bench.brain.decide(Disconnected(), 0, bench.rng)
    assert isinstance(effect, ConnectAt)
    assert effect.at_ns <= SECOND


def test_a_robot_that_the_fleet_has_forgotten_registers_again() -> None:
    bench = Bench()
    bench.join()
    assert of(bench.hear(Error(code="not_found", detail="register first")), Register)


def test_service_times_never_exceed_ten_means() -> None:
    for seed in range(300):
        bench = Bench(service_mean_s=1.0)
        bench.rng = Random(seed)
        bench.work()
        assert of(bench.run(10), Complete)


def test_the_same_seed_gives_the_same_life() -> None:
    lives = []
    for _ in range(2):
        bench = Bench()
        bench.work()
        bench.run(60)
        lives.append(bench.said)
    assert lives[0] == lives[1]


# -- what a scenario asks of a robot


def granted(bench: Bench, payload: dict[str, Any]) -> list[Any]:
    claim = bench.join()
    assert claim.id is not None
    job = GrantedJob(job_id="j", name="x", token=1, lease_ms=60_000, payload=payload)
    return bench.hear(Ack(id=claim.id, jobs=[job]))


def test_a_job_takes_as_long_as_it_says_by_the_speed_of_the_robot() -> None:
    bench = Bench(speed=2.0)
    granted(bench, {"service_s": 6.0})
    assert of(bench.run(2.999), Complete) == []
    assert only(bench.run(0.001), Complete).job_id == "j"


@pytest.mark.parametrize("service", [-1, "6", None, True, 1e99, float("nan")])
def test_a_job_that_says_nonsense_of_itself_takes_some_time_of_the_robots_own(service: Any) -> None:
    bench = Bench(service_mean_s=0.1)
    granted(bench, {"service_s": service, "progress_steps": service})
    messages = bench.run(1.1)
    assert only(messages, Complete).job_id == "j"


def test_a_robot_tells_its_progress_at_even_steps() -> None:
    bench = Bench(beats=False)
    granted(bench, {"service_s": 8.0, "progress_steps": 3})
    at_s = {}
    for step in range(1, 9):
        at_s |= {message.progress: step for message in of(bench.run(1), Progress)}
    assert at_s == {25.0: 2, 50.0: 4, 75.0: 6}


def test_progress_that_nobody_could_hear_is_not_told_later() -> None:
    bench = Bench()
    granted(bench, {"service_s": 8.0, "progress_steps": 3})
    bench.sense(Disconnected())
    bench.run(5)
    bench.sense(Connected())
    assert [message.progress for message in of(bench.run(4), Progress)] == [75.0]


def test_a_robot_whose_body_beats_says_no_heartbeat_by_itself_and_lists_its_jobs_when_asked() -> None:
    bench = Bench(beats=False)
    granted(bench, {"service_s": 50.0})
    assert of(bench.run(20), Heartbeat) == []
    beat = bench.brain.heartbeat(bench.now_ns, 12.5, 300.0)
    assert (beat.status, beat.cpu_percent, beat.memory_mb) == ("busy", 12.5, 300.0)
    assert beat.jobs == [JobToken("j", 1)]
    bench.hear(Ack(id=beat.id or ""))
    bench.run(40)  # beyond the lease of the grant: the answered heartbeat extended it
    assert bench.brain.completed + len(of(bench.said, Complete)) == 1


def test_a_robot_that_claims_nothing_is_given_nothing() -> None:
    bench = Bench(claims=False)
    bench.sense(Connected())
    bench.hear(Welcome(heartbeat_ms=1_000))
    assert of(bench.run(60), ClaimJobs) == []
    assert len(of(bench.said, Heartbeat)) > 50
