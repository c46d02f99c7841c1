"""Plays a scenario once in virtual time, and writes down what became of every job."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from fleet.errors import Full
from fleet.job import TERMINAL, JobStatus
from fleet.job_record import Fact
from fleet.limits import SECOND, Limits
from fleet.messages import JobSpec
from simulators.job_stream import Planned, arrivals_of
from simulators.queue.engine import Engine, Turn
from simulators.queue.history import Fate, History
from simulators.queue.world import FleetWorld
from simulators.robot import RobotProfile
from simulators.scenario import Scenario

CLAIM_WAIT_MS = 30_000


def seed_of(seed: int, replication: int) -> int:
    """Replications are independent of each other, and each is the same whenever it is played; 0 has the jobs
    that `fleetcast load` submits."""
    if replication == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(replication,)).generate_state(1, np.uint64)[0] >> 1)


def limits_of(scenario: Scenario) -> Limits:
    """Those of production, but for what the scenario says."""
    beats_ms = [round(fleet.heartbeats.interval * 1_000) for fleet in scenario.fleets.values()]
    interval_ms = max(beats_ms, default=Limits().heartbeat_interval_ms)
    return Limits(
        heartbeat_interval_ms=interval_ms,
        max_heartbeat_interval_ms=max(interval_ms, Limits().max_heartbeat_interval_ms),
    )


def robots_of(scenario: Scenario) -> dict[str, RobotProfile]:
    return {
        f"{name}-{number}": RobotProfile(
            speed=fleet.speed,
            failure_probability=fleet.failure_probability,
            max_concurrent_jobs=fleet.max_concurrent_jobs,
            capabilities=fleet.capabilities,
            environment=fleet.environment,
            claim_wait_ms=CLAIM_WAIT_MS,
            claim_pause_ms=0,
        )
        for name, fleet in scenario.fleets.items()
        for number in range(1, fleet.count + 1)
    }


class Player:
    """`play` may be called once."""

    def __init__(self, scenario: Scenario, folder: Path, replication: int) -> None:
        assert scenario.jobs is not None
        seed = seed_of(scenario.seed, replication)
        self._ends_s = scenario.lasts_s
        self._engine = Engine()
        self._world = FleetWorld(self._engine, limits_of(scenario), seed, robots_of(scenario), self._note)
        self._arrivals = arrivals_of(scenario.jobs, scenario.load, seed, folder)
        self._planned: dict[str, Planned] = {}
        self._due_s: float | None = None  # when an arrival is planned
        self._history = History(scenario.lasts_s)

    def play(self) -> History:
        self._plan_next()
        self._engine.run(round(self._ends_s * SECOND))
        return self._history

    def _plan_next(self) -> None:
        """Who thinks for a shorter time comes before who began to think earlier."""
        next_s = self._arrivals.next_s
        if next_s is None or next_s >= self._ends_s or (self._due_s is not None and self._due_s <= next_s):
            return
        self._due_s = next_s
        self._engine.at(round(next_s * SECOND), Turn.ARRIVAL, 0, partial(self._arrive, next_s))

    def _arrive(self, now_s: float) -> None:
        if self._due_s != now_s:
            return  # an earlier one took its place
        self._due_s = None
        for planned in self._arrivals.due(now_s):
            job_id = f"job-{planned.number}"
            self._planned[job_id] = planned
            self._history.came(planned.number, self._engine.now_ns)
            try:
                self._world.submit(job_id, msgspec.convert(planned.body, JobSpec))
            except Full:
                self._leave(job_id, Fate.BLOCKED)
        self._plan_next()

    def _note(self, now_ns: int, fact: Fact) -> None:
        if not fact.announced:
            return
        job = fact.record.job
        number = self._planned[job.job_id].number
        if job.status is JobStatus.PENDING:
            self._history.waits(number, now_ns)
        elif job.status is JobStatus.RUNNING:
            self._history.begins(number, now_ns)
        elif job.status in TERMINAL:
            served, begun = job.status is JobStatus.COMPLETED, self._history.has_begun(number)
            self._leave(job.job_id, Fate.SERVED if served else Fate.FAILED if begun else Fate.ABANDONED)

    def _leave(self, job_id: str, fate: Fate) -> None:
        planned = self._planned.pop(job_id)
        self._history.leaves(planned.number, self._engine.now_ns, fate)
        self._arrivals.ended(planned.number, self._engine.now_ns / SECOND)
        self._plan_next()


def play(scenario: Scenario, folder: Path, replication: int) -> History:
    """Raises Misuse for a trace that cannot be read."""
    return Player(scenario, folder, replication).play()
