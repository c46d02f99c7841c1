"""A fleet in virtual time: the job store, the registry and the robot brains of production, on an engine's
clock.

Messages take no time and none is lost. The fleet does what is due exactly when it is due, where production
looks every `tick_ms`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, cast

from fleet.errors import FleetError
from fleet.job_record import Fact
from fleet.job_store import JobStore
from fleet.limits import Limits
from fleet.messages import (
    Ack,
    Answer,
    Beat,
    Beats,
    CancelJob,
    Claim,
    ClaimJobs,
    Error,
    Heartbeat,
    JobSpec,
    Parked,
    Register,
    RobotMessage,
    RobotSpec,
    ServerMessage,
    Submit,
    Welcome,
    granted_job,
)
from fleet.registry import RobotRegistry
from fleet.reports import report_of
from simulators.queue.engine import Engine, Turn
from simulators.robot import Connected, Heard, RobotBrain, RobotProfile, Say, Sense, WakeAt, Woke

DOOR = "lab"
# At the beginning, 2026-01-01: some of the fleet's times are in wall time.
WALL_NS = 1_767_225_600 * 10**9
OnFact = Callable[[int, Fact], None]  # (now_ns, what changed)


class _Body:
    def __init__(self, number: int, robot_id: str, profile: RobotProfile, seed: int, loss: float) -> None:
        self.number = number
        self.robot_id = robot_id
        self.profile = profile
        self.brain = RobotBrain(profile)
        self.rng = Random(f"{seed} {robot_id}")
        self.loss = loss  # of its heartbeats
        self.weather = Random(f"{seed} {robot_id} heartbeats")
        self.alarm_ns = -1
        self.told_ms = 0  # between two heartbeats
        self.claim_id: str | int | None = None  # the message that waits for jobs
        self.there = True


class FleetWorld:
    """`robots` are the profiles of those who work; they connect at time 0. `on_fact` hears of every change
    of every job. `losses`: of each robot, the share of its heartbeats that never arrive. `looks_every_ns`:
    how often the fleet looks for what is due; 0 is all the time. `beats` counts those that robots sent,
    `declared_offline` the times that a robot was."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        seed: int,
        robots: Mapping[str, RobotProfile],
        on_fact: OnFact,
        losses: Mapping[str, float] | None = None,
        looks_every_ns: int = 0,
    ) -> None:
        self.beats = self.declared_offline = 0
        self._looks_every_ns = looks_every_ns
        self._engine = engine
        self._on_fact = on_fact
        self._store = JobStore(limits, Random(f"{seed} job store"))
        self._registry = RobotRegistry(limits)
        self._epoch = self._cursor = 0
        self._to_hear: deque[tuple[_Body, Sense]] = deque()
        self._settling = False
        self._tick_ns: int | None = None
        self._bodies = {
            robot_id: _Body(number, robot_id, profile, seed, (losses or {}).get(robot_id, 0.0))
            for number, (robot_id, profile) in enumerate(robots.items(), 1)
        }
        for body in self._bodies.values():
            engine.at(0, Turn.ROBOT, body.number, partial(self._sense, body, Connected()))

    def submit(self, job_id: str, spec: JobSpec) -> None:
        """Raises Full."""
        self._store.submit(Submit([job_id], [spec]), *self._now())
        self._settle()

    def kill(self, robot_id: str) -> None:
        """It vanishes without a word."""
        self._bodies[robot_id].there = False

    def revive(self, robot_id: str) -> None:
        """It comes back, and knows nothing of what it did before."""
        body = self._bodies[robot_id]
        body.brain, body.there, body.alarm_ns, body.claim_id = RobotBrain(body.profile), True, -1, None
        body.told_ms = 0
        self._sense(body, Connected())

    def _now(self) -> tuple[int, int]:
        return self._engine.now_ns, WALL_NS + self._engine.now_ns

    # -- what robots do

    def _sense(self, body: _Body, sense: Sense) -> None:
        self._to_hear.append((body, sense))
        self._settle()

    def _wake(self, body: _Body, at_ns: int) -> None:
        if body.alarm_ns == at_ns:
            body.alarm_ns = -1
            self._sense(body, Woke())

    def _think(self, body: _Body, sense: Sense) -> None:
        for effect in body.brain.decide(sense, self._engine.now_ns, body.rng) if body.there else ():
            match effect:
                case Say(message):
                    self._hear(body, cast(RobotMessage, message))
                case WakeAt(at_ns) if at_ns != body.alarm_ns:
                    body.alarm_ns = at_ns
                    self._engine.at(at_ns, Turn.ROBOT, body.number, partial(self._wake, body, at_ns))

    def _answer(self, body: _Body, message: ServerMessage) -> None:
        self._to_hear.append((body, Heard(message)))

    # -- what a door does with what they say

    def _hear(self, body: _Body, message: RobotMessage) -> None:
        try:
            self._take(body, message)
        except FleetError as error:
            self._answer(body, Error(id=message.id, code=error.code, detail=error.detail))

    def _take(self, body: _Body, message: RobotMessage) -> None:
        now = self._now()
        match message:
            case Register():
                fields = {name: getattr(message, name) for name in Register.__struct_fields__ if name != "id"}
                robot = self._registry.register(RobotSpec(robot_id=body.robot_id, **fields), "", *now)
                self._tell_interval(body, robot.heartbeat_interval_ms)
                self._ack(body, message)
            case Heartbeat():
                self.beats += 1
                if body.weather.random() >= body.loss:
                    self._beat(body, message)
            case ClaimJobs():
                self._claim(body, message)
            case _:
                self._store.report(report_of(message, body.robot_id), *now)
                self._ack(body, message)

    def _tell_interval(self, body: _Body, heartbeat_ms: int) -> None:
        """Once: who is told begins anew to count."""
        if heartbeat_ms != body.told_ms:
            body.told_ms = heartbeat_ms
            self._answer(body, Welcome(heartbeat_ms=heartbeat_ms))

    def _ack(self, body: _Body, message: RobotMessage) -> None:
        if message.id is not None:
            self._answer(body, Ack(id=message.id))

    def _beat(self, body: _Body, message: Heartbeat) -> None:
        job_ids = [job.job_id for job in message.jobs]
        beat = Beat(body.robot_id, message.status, message.cpu_percent, message.memory_mb, job_ids)
        [reply] = self._registry.heartbeats([beat], *self._now())
        if reply.refused:
            detail = f"{body.robot_id} is not registered"
            return self._answer(body, Error(id=message.id, code=reply.refused, detail=detail))
        for job_id in self._store.beats(Beats(body.robot_id, message.jobs, reply.lease_ms), self._now()[0]):
            self._answer(body, CancelJob(job_id=job_id))
        self._tell_interval(body, reply.next_heartbeat_ms)
        self._ack(body, message)

    def _claim(self, body: _Body, message: ClaimJobs) -> None:
        now_ns, wall_ns = self._now()
        admitted = self._registry.admit(body.robot_id, now_ns)
        body.claim_id = message.request_id if message.id is None else message.id
        answer = self._store.claim(
            Claim(
                DOOR,
                body.robot_id,
                message.request_id,
                message.limit,
                message.wait_ms,
                admitted.capabilities,
                admitted.environment,
                admitted.max_concurrent_jobs,
                lease_ms=admitted.lease_ms,
                admission=admitted.admission,
            ),
            now_ns,
            wall_ns,
        )
        if not isinstance(answer, Parked):
            self._grant(answer)

    def _grant(self, answer: Answer) -> None:
        body = self._bodies[answer.robot_id]
        if body.claim_id is not None:
            self._answer(body, Ack(id=body.claim_id, jobs=[granted_job(grant) for grant in answer.grants]))

    # -- what follows from it

    def _settle(self) -> None:
        """Until nobody has anything to hear: all that follows from one thing is at the same time."""
        if self._settling:
            return
        self._settling = True
        try:
            self._deliver()
            while self._to_hear:
                self._think(*self._to_hear.popleft())
                self._deliver()
        finally:
            self._settling = False
        self._tick_next()

    def _deliver(self) -> None:
        facts: list[Any] = self._store.take_facts()
        for fact in facts:
            if isinstance(fact, Fact):
                self._on_fact(self._engine.now_ns, fact)
        if facts:
            self._store.trim(facts[-1].number + 1)
        self._registry.take_events()
        self._registry.take_records()
        page = self._store.outbox(DOOR, self._epoch, self._cursor, self._engine.now_ns)
        self._epoch, self._cursor = page.epoch, page.cursor
        for answer in page.answers:
            self._grant(answer)
        for robot_id, job_id in page.cancels:
            self._answer(self._bodies[robot_id], CancelJob(job_id=job_id))

    def _tick_next(self) -> None:
        now = self._now()
        due = [
            at_ns for part in (self._store, self._registry) if (at_ns := part.next_tick_ns(*now)) is not None
        ]
        if due and (self._tick_ns is None or self._seen_ns(min(due)) < self._tick_ns):
            self._tick_ns = self._seen_ns(min(due))
            self._engine.at(self._tick_ns, Turn.FLEET, 0, partial(self._tick, self._tick_ns))

    def _seen_ns(self, due_ns: int) -> int:
        """When the fleet looks."""
        every_ns = self._looks_every_ns
        return due_ns if every_ns == 0 else -(-due_ns // every_ns) * every_ns

    def _tick(self, at_ns: int) -> None:
        if self._tick_ns != at_ns:
            return  # an earlier one took its place
        self._tick_ns = None
        self._deliver()  # so that the door is not taken for one that is gone
        before = self._registry.counts().offline
        self._registry.expire(*self._now())
        self.declared_offline += max(0, self._registry.counts().offline - before)
        self._store.tick(*self._now())
        self._settle()
