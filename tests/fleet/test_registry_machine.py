"""The registry against a model of plain dicts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from conftest import search_further
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fleet.errors import Busy, Conflict, NotFound
from fleet.limits import MS, Limits
from fleet.messages import Admitted, Beat, RobotSpec
from fleet.registry import RobotRegistry
from fleet.wall_time import rfc3339

LIMITS = Limits(heartbeat_interval_ms=100, max_robots=3)
THREE_BEATS_NS = 300 * MS
EPOCH_NS = 1_736_937_000_000_000_000
ROBOTS = st.sampled_from(["r1", "r2", "r3", "r4"])


@dataclass
class Known:
    spec: RobotSpec
    seen_ns: int
    beat: Beat = field(default_factory=lambda: Beat(""))
    offline: bool = False
    maintenance: bool = False
    draining: bool = False

    def status(self) -> str:
        if self.offline:
            return "offline"
        if self.maintenance:
            return "maintenance"
        if self.beat.status == "error":
            return "error"
        return "busy" if self.beat.status == "busy" or self.beat.job_ids else "idle"


class RegistryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.registry = RobotRegistry(LIMITS)
        self.known: dict[str, Known] = {}
        self.sessions: dict[str, str] = {}
        self.opened = 0
        self.now_ns = 0

    @property
    def wall_ns(self) -> int:
        return EPOCH_NS + self.now_ns

    def event(self, robot_id: str) -> dict[str, object]:
        """The one event that must have come of the last command."""
        known = self.known[robot_id]
        return {
            "robot_id": robot_id,
            "status": known.status(),
            "cpu_percent": known.beat.cpu_percent,
            "memory_mb": known.beat.memory_mb,
            "timestamp": rfc3339(self.wall_ns),
        }

    def superseded(self, robot_id: str, session: str) -> bool:
        return session != "" and self.sessions.get(robot_id, session) != session

    def heard(self) -> list[dict[str, object]]:
        return [json.loads(event) for event in self.registry.take_events()]

    @rule(robot_id=ROBOTS)
    def open(self, robot_id: str) -> None:
        self.opened += 1
        if robot_id not in self.sessions and len(self.sessions) >= LIMITS.max_robots:
            with pytest.raises(Busy):
                self.registry.open(robot_id, f"s{self.opened}")
            return
        self.sessions[robot_id] = f"s{self.opened}"
        opened = self.registry.open(robot_id, f"s{self.opened}")
        assert opened.heartbeat_ms == LIMITS.heartbeat_interval_ms

    @rule(robot_id=ROBOTS, old=st.booleans())
    def close(self, robot_id: str, old: bool) -> None:
        """Only the socket that holds the session ends it."""
        session = "s0" if old else self.sessions.get(robot_id, "s0")
        self.registry.close(robot_id, session)
        if self.sessions.get(robot_id) == session:
            del self.sessions[robot_id]

    @rule(
        robot_id=ROBOTS,
        session=st.sampled_from(["none", "current", "old"]),
        environment=st.sampled_from(["a", "b"]),
        slots=st.integers(1, 3),
    )
    def register(self, robot_id: str, session: str, environment: str, slots: int) -> None:
        spec = RobotSpec(robot_id=robot_id, environment=environment, max_concurrent_jobs=slots)
        named = {"none": "", "current": self.sessions.get(robot_id, ""), "old": "s0"}[session]
        if self.superseded(robot_id, named):
            with pytest.raises(Conflict) as refused:
                self.registry.register(spec, named, self.now_ns, self.wall_ns)
            assert refused.value.code == "superseded"
            assert self.heard() == []
            return
        if robot_id not in self.known and len(self.known) >= LIMITS.max_robots:
            with pytest.raises(Busy):
                self.registry.register(spec, named, self.now_ns, self.wall_ns)
            return
        if named:
            self.sessions[robot_id] = named
        new = robot_id not in self.known
        known = self.known.setdefault(robot_id, Known(spec, self.now_ns))
        known.spec = spec
        robot = self.registry.register(spec, named, self.now_ns, self.wall_ns)
        assert robot.environment == environment
        assert self.heard() == ([self.event(robot_id)] if new else [])

    @rule(
        robot_id=ROBOTS,
        session=st.sampled_from(["none", "current", "old"]),
        status=st.sampled_from(["idle", "busy", "error"]),
        jobs=st.integers(0, 2),
        cpu=st.floats(0, 100),
        memory=st.floats(0, 1e6),
    )
    def beat(self, robot_id: str, session: str, status: str, jobs: int, cpu: float, memory: float) -> None:
        named = {"none": "", "current": self.sessions.get(robot_id, ""), "old": "s0"}[session]
        beat = Beat(robot_id, status, cpu, memory, [f"j{n}" for n in range(jobs)], named)
        [reply] = self.registry.heartbeats([beat], self.now_ns, self.wall_ns)
        known = self.known.get(robot_id)
        if known is None or self.superseded(robot_id, named):
            assert reply.refused == ("superseded" if known else "not_found")
            assert self.heard() == []
            return
        known.beat, known.seen_ns, known.offline = beat, self.now_ns, False
        assert reply.refused == ""
        assert reply.drain == known.draining
        assert reply.next_heartbeat_ms == LIMITS.heartbeat_interval_ms
        assert self.heard() == [self.event(robot_id)]

    @rule(cpu=st.floats(0, 100), twice=ROBOTS)
    def a_batch_of_beats_is_one_event_each(self, cpu: float, twice: str) -> None:
        names = ["r1", "r2", twice]
        replies = self.registry.heartbeats(
            [Beat(name, "idle", cpu) for name in names], self.now_ns, self.wall_ns
        )
        expected = []
        for name, reply in zip(names, replies, strict=True):
            known = self.known.get(name)
            assert reply.refused == ("" if known else "not_found")
            if known:
                known.beat, known.seen_ns, known.offline = Beat(name, "idle", cpu), self.now_ns, False
                expected.append(self.event(name))
        assert self.heard() == expected

    @rule(
        robot_id=ROBOTS,
        maintenance=st.sampled_from([None, True, False]),
        draining=st.sampled_from([None, True, False]),
    )
    def set_status(self, robot_id: str, maintenance: bool | None, draining: bool | None) -> None:
        if robot_id not in self.known:
            with pytest.raises(NotFound):
                self.registry.set_status(robot_id, maintenance, draining, self.wall_ns)
            return
        known = self.known[robot_id]
        before = known.status()
        known.maintenance = known.maintenance if maintenance is None else maintenance
        known.draining = known.draining if draining is None else draining
        self.registry.set_status(robot_id, maintenance, draining, self.wall_ns)
        assert self.heard() == ([] if known.status() == before else [self.event(robot_id)])

    @rule(robot_id=ROBOTS)
    def delete(self, robot_id: str) -> None:
        known = self.known.get(robot_id)
        if known is None:
            with pytest.raises(NotFound):
                self.registry.delete(robot_id, self.wall_ns)
            assert self.heard() == []
            return
        last = [] if known.offline else [{**self.event(robot_id), "status": "offline"}]
        self.registry.delete(robot_id, self.wall_ns)
        del self.known[robot_id]
        self.sessions.pop(robot_id, None)
        assert self.heard() == last

    @rule(robot_id=ROBOTS)
    def admit(self, robot_id: str) -> None:
        known = self.known.get(robot_id)
        if known is None:
            with pytest.raises(NotFound):
                self.registry.admit(robot_id)
        elif known.maintenance or known.draining:
            with pytest.raises(Conflict) as refused:
                self.registry.admit(robot_id)
            assert refused.value.code == ("maintenance" if known.maintenance else "draining")
        else:
            spec = known.spec
            assert self.registry.admit(robot_id) == Admitted([], spec.environment, spec.max_concurrent_jobs)

    @rule(step_ms=st.sampled_from([1, 50, 100, 150, 299, 300, 301]))
    def time_passes(self, step_ms: int) -> None:
        """Offline comes at three intervals of silence, not before, and says the last cpu and memory."""
        self.now_ns += step_ms * MS
        self.registry.expire(self.now_ns, self.wall_ns)
        late = []
        for robot_id, known in self.known.items():
            if not known.offline and self.now_ns - known.seen_ns >= THREE_BEATS_NS:
                known.offline = True
                late.append(self.event(robot_id))
        assert sorted(self.heard(), key=str) == sorted(late, key=str)

    @invariant()
    def counts_agree(self) -> None:
        said = [known.status() for known in self.known.values()]
        counts = self.registry.counts()
        idle, busy = said.count("idle"), said.count("busy")
        assert (counts.total, counts.active) == (len(said), idle + busy)
        assert (counts.idle, counts.busy, counts.offline) == (idle, busy, said.count("offline"))

    @invariant()
    def every_robot_is_as_the_model_says(self) -> None:
        robots, total = self.registry.page(None, None, 10, 0)
        assert total == len(self.known)
        assert [robot.robot_id for robot in robots] == sorted(self.known)
        for robot in robots:
            known = self.known[robot.robot_id]
            assert robot.status == known.status()
            assert robot.draining == known.draining
            assert robot.current_job_ids == known.beat.job_ids
            assert robot.max_concurrent_jobs == known.spec.max_concurrent_jobs
            assert robot.last_seen == rfc3339(EPOCH_NS + known.seen_ns)
            assert robot == self.registry.get(robot.robot_id)

    @invariant()
    def pages_filter_by_status_and_environment(self) -> None:
        for status in ("idle", "offline"):
            for environment in (None, "a"):
                wanted = [
                    name
                    for name, known in sorted(self.known.items())
                    if known.status() == status and environment in (None, known.spec.environment)
                ]
                robots, total = self.registry.page(status, environment, 1, 1)
                assert total == len(wanted)
                assert [robot.robot_id for robot in robots] == wanted[1:2]


TestARegistryAgreesWithANaiveModel = RegistryMachine.TestCase
TestARegistryAgreesWithANaiveModel.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.long
def test_a_registry_agrees_with_its_model_on_many_more_examples() -> None:
    search_further(RegistryMachine)


def test_the_offline_event_carries_the_last_cpu_and_memory() -> None:
    registry = RobotRegistry(LIMITS)
    registry.register(RobotSpec(robot_id="r"), "", 0, EPOCH_NS)
    registry.heartbeats([Beat("r", "busy", 41.25, 512.5)], 10 * MS, EPOCH_NS)
    registry.take_events()
    registry.expire(310 * MS - 1, EPOCH_NS)
    assert registry.take_events() == []
    registry.expire(310 * MS, EPOCH_NS)
    [event] = registry.take_events()
    assert json.loads(event) == {
        "robot_id": "r",
        "status": "offline",
        "cpu_percent": 41.25,
        "memory_mb": 512.5,
        "timestamp": rfc3339(EPOCH_NS),
    }
