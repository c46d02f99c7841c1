"""The rules of the fleet in virtual time, against queues that can be computed job by job."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import Full
from fleet.job import JobEvent
from fleet.job_record import Fact
from fleet.limits import SECOND, Limits
from fleet.messages import Beat, JobSpec, RobotSpec
from fleet.registry import RobotRegistry
from simulators.queue.engine import Engine, Turn
from simulators.queue.world import FleetWorld
from simulators.robot import RobotProfile

WORKER = RobotProfile(failure_probability=0.0, claim_pause_ms=0, claim_wait_ms=30_000)


class Lab:
    """Jobs that arrive when they are told to; of each what happened, and when."""

    def __init__(self, robots: Sequence[RobotProfile], limits: Limits | None = None, seed: int = 1) -> None:
        self.engine = Engine()
        self.told: dict[str, list[tuple[JobEvent, int]]] = {}
        self.by: dict[str, list[str | None]] = {}
        named = {f"robot-{number}": profile for number, profile in enumerate(robots, 1)}
        self.world = FleetWorld(self.engine, limits or Limits(), seed, named, self._note)

    def _note(self, now_ns: int, fact: Fact) -> None:
        job = fact.record.job
        if fact.recorded:
            self.told.setdefault(job.job_id, []).append((fact.event, now_ns))
        if fact.event is JobEvent.CLAIM:
            self.by.setdefault(job.job_id, []).append(job.robot_id)

    def job(self, number: int, at_ns: int, service_ns: int, **spec: Any) -> None:
        def arrive() -> None:
            self.world.submit(f"job-{number}", JobSpec("weld", {"service_s": service_ns / 1e9}, **spec))

        self.engine.at(at_ns, Turn.ARRIVAL, number, arrive)

    def when(self, number: int, event: JobEvent) -> list[int]:
        return [at_ns for each, at_ns in self.told[f"job-{number}"] if each is event]

    def waits_ns(self, jobs: int) -> list[int]:
        """From the arrival to the first start."""
        return [
            self.when(number, JobEvent.START)[0] - self.when(number, JobEvent.SUBMIT)[0]
            for number in range(jobs)
        ]


def kiefer_wolfowitz(arrivals: Sequence[int], services: Sequence[int], servers: int) -> list[int]:
    """Waits in a queue that is served first come first served, by whoever is free first."""
    free = [0] * servers
    waits = []
    for at, service in zip(arrivals, services, strict=True):
        begins = max(at, free[0])
        heapq.heapreplace(free, begins + service)
        waits.append(begins - at)
    return waits


@pytest.mark.parametrize(
    ("robots", "waits"), [(1, [0.0, 0.7, 1.25, 0.0, 0.0, 1.5]), (2, [0.0, 0.0, 0.45, 0.0, 0.0, 0.0])]
)
def test_six_jobs_by_lindley(robots: int, waits: list[float]) -> None:
    lab = Lab([WORKER] * robots)
    at_ns = 0
    gaps, services = [1.0, 0.5, 0.25, 3.0, 0.5, 0.5], [1.2, 0.8, 1.5, 0.4, 2.0, 0.1]
    for number, (gap, service) in enumerate(zip(gaps, services, strict=True)):
        at_ns += round(gap * SECOND)
        lab.job(number, at_ns, round(service * SECOND))
    lab.engine.run(60 * SECOND)
    assert lab.waits_ns(6) == [round(wait * SECOND) for wait in waits]


@settings(max_examples=25, deadline=None)
@given(
    gaps=st.lists(st.integers(0, 4_000), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
    robots=st.integers(1, 4),
)
def test_every_wait_is_that_of_kiefer_and_wolfowitz(gaps: list[int], seed: int, robots: int) -> None:
    """In milliseconds, so that many things happen at one time."""
    rng = Random(seed)
    services = [rng.randrange(1, 6_000) * 1_000_000 for _ in gaps]
    arrivals = [1_000_000_000 + sum(gaps[: place + 1]) * 1_000_000 for place in range(len(gaps))]
    lab = Lab([WORKER] * robots)
    for number, (at_ns, service_ns) in enumerate(zip(arrivals, services, strict=True)):
        lab.job(number, at_ns, service_ns)
    lab.engine.run(600 * SECOND)
    assert lab.waits_ns(len(gaps)) == kiefer_wolfowitz(arrivals, services, robots)


def test_the_urgent_go_first_and_interrupt_nobody() -> None:
    lab = Lab([WORKER], Limits(aging_ms_per_level=10**9))
    for number, (at_s, priority) in enumerate([(1, 10), (2, 10), (3, 0), (4, 5)]):
        lab.job(number, at_s * SECOND, 10 * SECOND, priority=priority)
    lab.engine.run(100 * SECOND)
    began_s = [lab.when(number, JobEvent.START)[0] / SECOND for number in range(4)]
    assert began_s == [1, 31, 11, 21]


def test_long_jobs_keep_their_robot_by_its_heartbeats() -> None:
    lab = Lab([WORKER, WORKER])
    lab.job(0, SECOND, 3_600 * SECOND)
    lab.engine.run(4_000 * SECOND)
    assert lab.when(0, JobEvent.COMPLETE) == [3_601 * SECOND]
    assert len(lab.when(0, JobEvent.CLAIM)) == 1


def test_the_job_of_a_robot_that_vanishes_is_done_by_another_after_its_lease() -> None:
    lab = Lab([WORKER, WORKER])
    lab.job(0, SECOND, 10 * SECOND)
    lab.engine.run(2 * SECOND)
    [first] = lab.by["job-0"]
    assert first is not None
    lab.world.kill(first)
    lab.engine.run(100 * SECOND)
    assert len(lab.when(0, JobEvent.LEASE_EXPIRED)) == 1
    [expired_ns] = lab.when(0, JobEvent.LEASE_EXPIRED)
    last_beat_ns = expired_ns - Limits().lease_ms * 1_000_000
    assert SECOND <= last_beat_ns <= 2 * SECOND
    assert lab.by["job-0"] == [first, "robot-2" if first == "robot-1" else "robot-1"]
    assert lab.when(0, JobEvent.COMPLETE) == [expired_ns + 10 * SECOND]


def test_who_waits_too_long_leaves() -> None:
    lab = Lab([WORKER])
    lab.job(0, SECOND, 20 * SECOND)
    lab.job(1, 2 * SECOND, SECOND, pending_timeout_s=5.0)
    lab.job(2, 3 * SECOND, SECOND)
    lab.engine.run(60 * SECOND)
    assert lab.when(1, JobEvent.PENDING_TIMEOUT) == [7 * SECOND]
    assert lab.when(1, JobEvent.START) == []
    assert lab.when(2, JobEvent.START) == [21 * SECOND]


def test_a_job_that_fails_is_tried_again_and_then_given_up() -> None:
    clumsy = msgspec.structs.replace(WORKER, failure_probability=1.0)
    lab = Lab([clumsy], Limits(backoff_base_ms=1, backoff_max_ms=10_000))
    lab.job(0, SECOND, SECOND, max_attempts=3)
    lab.engine.run(100 * SECOND)
    assert len(lab.when(0, JobEvent.FAIL)) == len(lab.when(0, JobEvent.START)) == 3
    assert lab.told["job-0"][-1][0] is JobEvent.FAIL


def test_only_robots_that_can_take_a_job_do() -> None:
    welder = msgspec.structs.replace(WORKER, capabilities=["welding"])
    lab = Lab([WORKER, welder])
    lab.job(0, SECOND, 5 * SECOND, required_capabilities=["welding"])
    lab.job(1, SECOND, 5 * SECOND, required_capabilities=["welding"])
    lab.engine.run(60 * SECOND)
    assert lab.by == {"job-0": ["robot-2"], "job-1": ["robot-2"]}
    assert lab.waits_ns(2) == [0, 5 * SECOND]


def test_a_full_queue_takes_no_more() -> None:
    lab = Lab([], Limits(max_pending=1))
    lab.job(0, SECOND, SECOND)
    lab.engine.run(2 * SECOND)
    with pytest.raises(Full):
        lab.world.submit("job-1", JobSpec("weld"))


def test_the_same_seed_gives_the_same_history_and_another_another() -> None:
    def history(seed: int) -> Any:
        clumsy = msgspec.structs.replace(WORKER, failure_probability=0.3)
        lab = Lab([clumsy, clumsy], seed=seed)
        for number in range(20):
            lab.job(number, number * SECOND, 3 * SECOND)
        lab.engine.run(600 * SECOND)
        return lab.told

    assert history(1) == history(1)
    assert history(1) != history(2)


# -- the clock


def test_things_of_one_time_go_by_turn_then_number_then_as_they_were_asked_for() -> None:
    engine, seen = Engine(), list[str]()
    note: Callable[[str], Callable[[], object]] = lambda what: lambda: seen.append(what)  # noqa: E731
    engine.at(5, Turn.ARRIVAL, 1, note("arrival 1"))
    engine.at(5, Turn.ARRIVAL, 0, note("arrival 0"))
    engine.at(5, Turn.FLEET, 0, note("fleet"))
    engine.at(5, Turn.ROBOT, 7, note("robot 7"))
    engine.at(5, Turn.ROBOT, 7, note("robot 7 again"))
    engine.at(4, Turn.ARRIVAL, 9, note("earlier"))
    engine.run(4)
    assert (seen, engine.now_ns) == (["earlier"], 4)
    engine.at(1, Turn.ROBOT, 1, note("late"))
    engine.run()
    assert seen[1:] == ["late", "robot 7", "robot 7 again", "fleet", "arrival 0", "arrival 1"]
    engine.run(50)
    assert engine.now_ns == 50


# -- who is taken for lost


PUNCTUAL = msgspec.structs.replace(WORKER, heartbeat_jitter=0.0)


class Beating:
    """Robots that beat every five seconds and have nothing else to do."""

    def __init__(self, robots: int, loss: float = 0.0, looks_every_ns: int = 0) -> None:
        self.engine = Engine()
        names = [f"robot-{number}" for number in range(robots)]
        self.world = FleetWorld(
            self.engine,
            Limits(),
            1,
            dict.fromkeys(names, PUNCTUAL),
            lambda now_ns, fact: None,
            dict.fromkeys(names, loss),
            looks_every_ns,
        )


def beats_until_offline(loss: float, robots: int, hours: float) -> float:
    beating = Beating(robots, loss)
    beating.engine.run(round(hours * 3_600 * SECOND))
    return beating.world.beats / beating.world.declared_offline


def expected_beats(loss: float, misses: int = 3) -> float:
    """Until so many in a row are lost; and then those that are lost as well, until one arrives."""
    return (1 - loss**misses) / ((1 - loss) * loss**misses) + 1 / (1 - loss)


def test_a_robot_whose_heartbeats_get_lost_is_taken_for_lost_as_often_as_it_should() -> None:
    """Three of them in a row, of which three of ten do: every 51.48 heartbeats (Feller I, XIII.7)."""
    assert expected_beats(0.3) - 1 / 0.7 == pytest.approx(51.48148148)
    assert beats_until_offline(0.3, robots=10, hours=8) == pytest.approx(expected_beats(0.3), rel=0.05)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_robot_that_loses_one_of_twenty_is_taken_for_lost_twice_a_day() -> None:
    """Every 8,420 heartbeats, which are 42,100 s. By the registry alone: it takes ten million of them."""
    rng, period_ns, beats, robots = Random(5), 5 * SECOND, 0, 1_000
    registry = RobotRegistry(Limits())
    names = [f"robot-{number}" for number in range(robots)]
    for name in names:
        registry.register(RobotSpec(robot_id=name), "", 0, 0)
    declared, now_ns = 0, 0
    for _ in range(14_000):
        now_ns += period_ns
        heard = [Beat(name, None, None, None, []) for name in names if rng.random() >= 0.05]
        beats += robots
        registry.heartbeats(heard, now_ns, now_ns)
        before = registry.counts().offline
        registry.expire(now_ns, now_ns)
        declared += registry.counts().offline - before
        registry.take_events()
        registry.take_records()
    assert expected_beats(0.05) - 1 / 0.95 == pytest.approx(8_420)
    assert beats / declared == pytest.approx(8_420, rel=0.05)


def test_a_robot_that_dies_is_found_when_three_heartbeats_are_missed_and_somebody_looks() -> None:
    """At a random time between two of five seconds, by a fleet that looks each second: after 13 s on average
    (15 s after its last heartbeat, which was 2.5 s ago, and half a second later), 10 at least, 16 at most."""
    rng = Random(3)
    found_s = []
    for _ in range(150):
        beating = Beating(1, looks_every_ns=SECOND)
        died_ns = 60 * SECOND + rng.randrange(50 * SECOND)
        beating.engine.run(died_ns)
        beating.world.kill("robot-0")
        while not beating.world.declared_offline:
            beating.engine.run(beating.engine.now_ns + SECOND // 10)
        found_s.append((beating.engine.now_ns - died_ns) / SECOND)
    assert min(found_s) >= 9.9
    assert max(found_s) <= 16.2
    assert sum(found_s) / len(found_s) == pytest.approx(13.0, abs=0.4)


def test_robots_that_come_back_work_again() -> None:
    lab = Lab([WORKER])
    lab.job(0, 2 * SECOND, 100 * SECOND)
    lab.engine.run(10 * SECOND)
    lab.world.kill("robot-1")
    lab.engine.run(20 * SECOND)
    lab.world.revive("robot-1")
    lab.engine.run(400 * SECOND)
    claims = lab.when(0, JobEvent.CLAIM)
    assert len(claims) == 2
    assert claims[1] > 20 * SECOND
    assert lab.when(0, JobEvent.COMPLETE) == [claims[1] + 100 * SECOND]
