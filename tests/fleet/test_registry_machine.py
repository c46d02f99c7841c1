"""The registry against a model of plain dicts, with a journal through which it may crash at any time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from conftest import search_further
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fleet.errors import Busy, Conflict, NotFound, Unavailable
from fleet.limits import MS, Limits
from fleet.messages import Admitted, Beat, BeatReply, RobotSpec, SetRobotStatus
from fleet.registry import RobotRegistry
from fleet.robot import Pause
from fleet.robot_record import RobotRecord
from fleet.wall_time import rfc3339

# Three robots must beat every 200 ms to keep to 15 a second, one may every 100.
LIMITS = Limits(
    heartbeat_interval_ms=100,
    max_heartbeats_per_s=15,
    max_heartbeat_interval_ms=240,
    min_lease_ms=350,
    max_robots=3,
    deletion_ms=250,
)
EPOCH_NS = 1_736_937_000_000_000_000
ROBOTS = st.sampled_from(["r1", "r2", "r3", "r4"])
SESSIONS = st.sampled_from(["none", "current", "old"])
MAYBE = st.sampled_from([None, True, False])


@dataclass
class Known:
    spec: RobotSpec
    seen_ns: int
    seen_at: str
    told_ms: int
    followed_ms: int
    beat: Beat = field(default_factory=lambda: Beat(""))
    offline: bool = False
    maintenance: Pause | None = None
    drain: Pause | None = None
    admission: int = 0
    deleting: tuple[int, int] = (0, 0)  # since which admission, until when

    def status(self) -> str:
        if self.offline:
            return "offline"
        if self.maintenance:
            return "maintenance"
        if self.beat.status == "error":
            return "error"
        return "busy" if self.beat.status == "busy" or self.beat.job_ids else "idle"

    def told(self, interval_ms: int, heard: bool) -> None:
        """It may follow what it was told before until it is heard again."""
        self.followed_ms = max(interval_ms, self.told_ms if heard else self.followed_ms)
        self.told_ms = interval_ms

    @property
    def silent_ns(self) -> int:
        return self.seen_ns + 3 * self.followed_ms * MS


class RegistryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.registry = RobotRegistry(LIMITS)
        self.journal: dict[str, RobotRecord] = {}
        self.known: dict[str, Known] = {}
        self.sessions: dict[str, str] = {}
        self.opened = 0
        self.admission = 0
        self.now_ns = 0

    @property
    def wall_ns(self) -> int:
        return EPOCH_NS + self.now_ns

    @property
    def at(self) -> str:
        return rfc3339(self.wall_ns)

    def event(self, robot_id: str) -> dict[str, object]:
        """The one event that must have come of the last command."""
        known = self.known[robot_id]
        return {
            "robot_id": robot_id,
            "status": known.status(),
            "cpu_percent": known.beat.cpu_percent,
            "memory_mb": known.beat.memory_mb,
            "timestamp": self.at,
        }

    def superseded(self, robot_id: str, session: str) -> bool:
        return session != "" and self.sessions.get(robot_id, session) != session

    def named(self, robot_id: str, session: str) -> str:
        return {"none": "", "current": self.sessions.get(robot_id, ""), "old": "s0"}[session]

    def heard(self) -> list[dict[str, object]]:
        return [json.loads(event) for event in self.registry.take_events()]

    def higher(self, admission: int) -> int:
        assert admission > self.admission
        self.admission = admission
        return admission

    @rule(robot_id=ROBOTS)
    def open(self, robot_id: str) -> None:
        self.opened += 1
        if robot_id not in self.sessions and len(self.sessions) >= LIMITS.max_robots:
            with pytest.raises(Busy):
                self.registry.open(robot_id, f"s{self.opened}")
            return
        self.sessions[robot_id] = f"s{self.opened}"
        opened = self.registry.open(robot_id, f"s{self.opened}")
        if robot_id in self.known:
            self.known[robot_id].told(opened.heartbeat_ms, heard=False)

    @rule(robot_id=ROBOTS, old=st.booleans())
    def close(self, robot_id: str, old: bool) -> None:
        """Only the socket that holds the session ends it."""
        session = "s0" if old else self.sessions.get(robot_id, "s0")
        self.registry.close(robot_id, session)
        if self.sessions.get(robot_id) == session:
            del self.sessions[robot_id]

    @rule(robot_id=ROBOTS, session=SESSIONS, environment=st.sampled_from(["a", "b"]), slots=st.integers(1, 3))
    def register(self, robot_id: str, session: str, environment: str, slots: int) -> None:
        spec = RobotSpec(robot_id=robot_id, environment=environment, max_concurrent_jobs=slots)
        named = self.named(robot_id, session)
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
        robot = self.registry.register(spec, named, self.now_ns, self.wall_ns)
        told_ms = robot.heartbeat_interval_ms
        if robot_id in self.known:
            self.known[robot_id].spec = spec
            self.known[robot_id].told(told_ms, heard=False)
            assert self.heard() == []
        else:
            known = Known(spec, self.now_ns, self.at, told_ms, told_ms)
            self.known[robot_id] = known
            known.admission = self.higher(self.registry.admit(robot_id, self.now_ns).admission)
            assert self.heard() == [self.event(robot_id)]
        assert robot.environment == environment

    def accept(self, beat: Beat, reply: BeatReply) -> dict[str, object]:
        """What must follow of a beat that is not refused."""
        known = self.known[beat.robot_id]
        known.beat, known.seen_ns, known.seen_at, known.offline = beat, self.now_ns, self.at, False
        known.told(reply.next_heartbeat_ms, heard=True)
        assert (reply.refused, reply.drain) == ("", known.drain is not None)
        assert reply.lease_ms == max(350, 3 * known.followed_ms)
        return self.event(beat.robot_id)

    @rule(
        robot_id=ROBOTS,
        session=SESSIONS,
        status=st.sampled_from(["idle", "busy", "error"]),
        jobs=st.integers(0, 2),
        cpu=st.floats(0, 100),
        memory=st.floats(0, 1e6),
    )
    def beat(self, robot_id: str, session: str, status: str, jobs: int, cpu: float, memory: float) -> None:
        named = self.named(robot_id, session)
        beat = Beat(robot_id, status, cpu, memory, [f"j{n}" for n in range(jobs)], named)
        [reply] = self.registry.heartbeats([beat], self.now_ns, self.wall_ns)
        known = self.known.get(robot_id)
        if known is None or self.superseded(robot_id, named):
            assert reply.refused == ("superseded" if known else "not_found")
            assert self.heard() == []
        else:
            assert [self.accept(beat, reply)] == self.heard()

    @rule(cpu=st.floats(0, 100), twice=ROBOTS)
    def a_batch_of_beats_is_one_event_each(self, cpu: float, twice: str) -> None:
        beats = [Beat(name, "idle", cpu) for name in ("r1", "r2", twice)]
        replies = self.registry.heartbeats(beats, self.now_ns, self.wall_ns)
        expected = []
        for beat, reply in zip(beats, replies, strict=True):
            if beat.robot_id in self.known:
                expected.append(self.accept(beat, reply))
            else:
                assert reply.refused == "not_found"
        assert self.heard() == expected

    @rule(
        robot_id=ROBOTS,
        maintenance=MAYBE,
        draining=MAYBE,
        note=st.sampled_from(["", "new gripper"]),
        after_ms=st.sampled_from([None, -1, 50, 150, 1_000]),
    )
    def set_status(
        self, robot_id: str, maintenance: bool | None, draining: bool | None, note: str, after_ms: int | None
    ) -> None:
        until = None if after_ms is None else rfc3339(self.wall_ns + after_ms * MS)
        command = SetRobotStatus(robot_id, maintenance, draining, note, until)
        if robot_id not in self.known:
            with pytest.raises(NotFound):
                self.registry.set_status(command, self.wall_ns)
            return
        known = self.known[robot_id]
        before = known.status()
        pause = Pause(note=note, since=self.at, until=until)
        if maintenance is not None:
            known.maintenance = pause if maintenance else None
        if draining is not None:
            known.drain = pause if draining else None
        done = self.registry.set_status(command, self.wall_ns)
        if maintenance or draining:
            known.admission = self.higher(done.admission)
        assert done.admission == known.admission
        assert done.robot == self.registry.get(robot_id)
        assert self.heard() == ([] if known.status() == before else [self.event(robot_id)])

    @rule(robot_id=ROBOTS)
    def begin_deletion(self, robot_id: str) -> None:
        known = self.known.get(robot_id)
        if known is None:
            with pytest.raises(NotFound):
                self.registry.begin_deletion(robot_id, self.now_ns, self.wall_ns)
            return
        known.admission = self.higher(self.registry.begin_deletion(robot_id, self.now_ns, self.wall_ns))
        since, until_ns = known.deleting
        since = since if until_ns > self.now_ns else known.admission
        known.deleting = (since, self.now_ns + 250 * MS)

    @rule(robot_id=ROBOTS)
    def give_up_deletion(self, robot_id: str) -> None:
        if robot_id in self.known:
            self.registry.give_up_deletion(robot_id)
            self.known[robot_id].deleting = (0, 0)

    @rule(robot_id=ROBOTS, older=st.booleans())
    def delete(self, robot_id: str, older: bool) -> None:
        """Only where no claim can have been admitted since the admission that is named."""
        known = self.known.get(robot_id)
        since, until_ns = known.deleting if known else (0, 0)
        admission = since - 1 if older else since
        if known is None:
            self.registry.delete(robot_id, admission, self.now_ns, self.wall_ns)
            assert self.heard() == []
        elif older or until_ns <= self.now_ns:
            with pytest.raises(Unavailable):
                self.registry.delete(robot_id, admission, self.now_ns, self.wall_ns)
            assert self.heard() == []
        else:
            last = [] if known.offline else [{**self.event(robot_id), "status": "offline"}]
            self.registry.delete(robot_id, admission, self.now_ns, self.wall_ns)
            del self.known[robot_id]
            self.sessions.pop(robot_id, None)
            assert self.heard() == last

    @rule(robot_id=ROBOTS)
    def admit(self, robot_id: str) -> None:
        known = self.known.get(robot_id)
        if known is None:
            with pytest.raises(NotFound):
                self.registry.admit(robot_id, self.now_ns)
            return
        deleting = known.deleting[1] > self.now_ns
        if known.maintenance or known.drain or deleting:
            with pytest.raises(Conflict) as refused:
                self.registry.admit(robot_id, self.now_ns)
            paused = "maintenance" if known.maintenance else "draining" if known.drain else "deleting"
            assert refused.value.code == paused
            return
        spec, lease_ms = known.spec, max(350, 3 * known.followed_ms)
        admitted = Admitted([], spec.environment, spec.max_concurrent_jobs, lease_ms, known.admission)
        assert self.registry.admit(robot_id, self.now_ns) == admitted

    @rule(step_ms=st.sampled_from([1, 50, 100, 150, 299, 300, 301, 800]))
    def time_passes(self, step_ms: int) -> None:
        """Offline comes at three intervals of silence, not before, and says the last cpu and memory; what was
        to last until now is over."""
        self.now_ns += step_ms * MS
        self.registry.expire(self.now_ns, self.wall_ns)
        said = []
        for robot_id, known in self.known.items():
            if not known.offline and self.now_ns >= known.silent_ns:
                known.offline = True
                said.append(self.event(robot_id))
        for robot_id, known in self.known.items():
            before = (known.maintenance, known.drain)
            known.maintenance, known.drain = self.lasting(known.maintenance), self.lasting(known.drain)
            said += [self.event(robot_id)] if before != (known.maintenance, known.drain) else []
        assert sorted(self.heard(), key=str) == sorted(said, key=str)

    def lasting(self, pause: Pause | None) -> Pause | None:
        return None if pause and pause.until and pause.until <= self.at else pause

    @rule(away_ms=st.sampled_from([20, 5_000]))
    def crash(self, away_ms: int) -> None:
        """The journal brings everything back but heartbeats and sockets; nobody is offline who was not."""
        self.now_ns += away_ms * MS
        self.registry = RobotRegistry(LIMITS)
        self.registry.restore(self.journal.values(), self.now_ns)
        self.sessions = {}
        for robot_id, known in self.known.items():
            seen_at = self.journal[robot_id].seen_at
            assert seen_at == known.seen_at if known.offline else seen_at <= known.seen_at
            known.seen_at, known.seen_ns = seen_at, self.now_ns
            known.beat, known.deleting = Beat(""), (0, 0)
        assert self.heard() == []

    @invariant()
    def the_journal_knows_all_that_must_survive(self) -> None:
        changes = self.registry.take_records()
        self.journal |= {record.spec.robot_id: record for record in changes.changed}
        for robot_id in changes.deleted:
            del self.journal[robot_id]
        assert self.journal.keys() == self.known.keys()
        for robot_id, record in self.journal.items():
            known = self.known[robot_id]
            assert (record.spec, record.offline) == (known.spec, known.offline)
            assert (record.maintenance, record.drain) == (known.maintenance, known.drain)
            assert (record.interval_ms, record.followed_ms) == (known.told_ms, known.followed_ms)
            assert record.admission == known.admission

    @invariant()
    def what_did_not_change_is_not_written_again(self) -> None:
        assert self.registry.take_records().changed == []

    @invariant()
    def heartbeats_keep_to_their_rate(self) -> None:
        """Once every robot has learned the interval that one would be told now."""
        if len(self.sessions) < LIMITS.max_robots:
            told_ms = self.registry.open("nobody", "s").heartbeat_ms
            self.registry.close("nobody", "s")
            there = sum(not known.offline for known in self.known.values())
            assert 100 <= told_ms <= 240
            assert there * 1_000 <= told_ms * LIMITS.max_heartbeats_per_s

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
            assert (robot.draining, robot.drain) == (known.drain is not None, known.drain)
            assert robot.maintenance == known.maintenance
            assert robot.heartbeat_interval_ms == known.told_ms
            assert robot.current_job_ids == known.beat.job_ids
            assert robot.max_concurrent_jobs == known.spec.max_concurrent_jobs
            assert robot.last_seen == known.seen_at
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
