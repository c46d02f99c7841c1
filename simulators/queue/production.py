"""Plays a scenario once by the code of production: job store, registry and robots in virtual time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from fleet.errors import Full
from fleet.job import TERMINAL, JobStatus
from fleet.job_record import Fact
from fleet.limits import MS, Limits
from fleet.messages import JobSpec
from simulators.draws import stream
from simulators.job_stream import Planned, arrivals_of
from simulators.keyed import NANO, Ints
from simulators.queue.arrays import aging_ns, backoff_ns, slots_of
from simulators.queue.engine import Engine, Turn
from simulators.queue.kernels.tally import NOTHING, Cell, Fate, Tally, new_tally
from simulators.queue.ledger import Ledger
from simulators.queue.world import WALL_NS, FleetWorld
from simulators.robot import RobotProfile
from simulators.scenario import RobotFault, Scenario

CLAIM_WAIT_MS = 30_000
STRICT_MS = 10**12  # a level of priority is worth more than a scenario lasts
AGING_MS = {"fifo": 0, "priority": STRICT_MS}


def undone(scenario: Scenario) -> list[str]:
    """What production has no rule for: by the names of the fields."""
    queue = scenario.queue
    asked = {
        "queue.discipline": queue.discipline not in ("production", *AGING_MS),
        "queue.capacity": queue.capacity is not None,
        "queue.balking": queue.balking is not None,
        "queue.aging in parts of a millisecond": aging_ns(queue) % MS > 0,
        "queue.backoff in parts of a millisecond": any(each % MS > 0 for each in backoff_ns(queue)),
    }
    for name, fleet in scenario.fleets.items():
        asked[f"fleets.{name}.breakdowns"] = fleet.breakdowns is not None
    for name, each in (scenario.jobs.classes if scenario.jobs else {}).items():
        asked[f"jobs.classes.{name}.each_attempt"] = each.each_attempt != "same"
    return [name for name, there in asked.items() if there]


def limits_of(scenario: Scenario) -> Limits:
    """Those of production, but for what the scenario says."""
    beats_ms = [round(fleet.heartbeats.interval * 1_000) for fleet in scenario.fleets.values()]
    limits, queue = Limits(), scenario.queue
    interval_ms = max(beats_ms, default=limits.heartbeat_interval_ms)
    base_ns, most_ns = backoff_ns(queue)
    return Limits(
        heartbeat_interval_ms=interval_ms,
        max_heartbeat_interval_ms=max(interval_ms, limits.max_heartbeat_interval_ms),
        aging_ms_per_level=AGING_MS.get(queue.discipline, aging_ns(queue) // MS),
        backoff_base_ms=base_ns // MS,
        backoff_max_ms=max(1, most_ns // MS),
        cancel_grace_ms=min(limits.cancel_grace_ms, max(1, most_ns // MS)),
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
            heartbeat_jitter=fleet.heartbeats.jitter / 2,
        )
        for name, fleet in scenario.fleets.items()
        for number in range(1, fleet.count + 1)
    }


def play(scenario: Scenario, folder: Path, seed: int, warm_up_ns: int = 0, told: Ints = NOTHING) -> Tally:
    """As `fast.play`."""
    assert scenario.jobs is not None
    lasts_ns = round(scenario.lasts_s * NANO)
    tally = new_tally(lasts_ns, warm_up_ns, len(scenario.jobs.classes), slots_of(scenario))
    ledger = Ledger(tally, told)
    Player(scenario, folder, seed, ledger).play(lasts_ns)
    ledger.close()
    return tally


def losses_of(scenario: Scenario) -> dict[str, float]:
    """Of each robot, the share of its heartbeats that never arrive."""
    return {
        f"{name}-{number}": fleet.heartbeats.loss
        for name, fleet in scenario.fleets.items()
        for number in range(1, fleet.count + 1)
    }


class Player:
    """`play` may be called once."""

    def __init__(self, scenario: Scenario, folder: Path, seed: int, ledger: Ledger) -> None:
        assert scenario.jobs is not None
        self._ends_s = scenario.lasts_s
        self._engine = Engine()
        robots = robots_of(scenario)
        losses = losses_of(scenario)
        self._world = FleetWorld(self._engine, limits_of(scenario), seed, robots, self._note, losses)
        self._faults = [fault for fault in scenario.faults if isinstance(fault, RobotFault)]
        self._fleets = scenario.fleets
        self._choice = stream(seed, "faults")
        self._arrivals = arrivals_of(scenario.jobs, scenario.load, seed, folder)
        self._classes = {name: place for place, name in enumerate(scenario.jobs.classes)}
        self._planned: dict[str, Planned] = {}
        self._due_s: float | None = None  # when an arrival is planned
        self._ledger = ledger
        self._free = _slots(robots)
        self._at: dict[int, tuple[str, int]] = {}  # job: its robot, and which of its slots

    def play(self, lasts_ns: int) -> None:
        for fault in self._faults:
            self._engine.at(round(fault.at * NANO), Turn.FLEET, 0, partial(self._harm, fault))
        self._plan_next()
        self._engine.run(lasts_ns)

    def _harm(self, fault: RobotFault) -> None:
        """Robots are chosen by the seed."""
        count = self._fleets[fault.fleet].count
        for chosen in self._choice.choice(count, round(fault.share * count), replace=False):
            robot_id = f"{fault.fleet}-{chosen + 1}"
            self._world.kill(robot_id)
            for job in [job for job, (by, _) in self._at.items() if by == robot_id]:
                self._stop(job, done=False)
                self._ledger.turns(job, Cell.HELD, self._engine.now_ns)
            if fault.lasts is not None:
                back_ns = self._engine.now_ns + round(fault.lasts * NANO)
                self._engine.at(back_ns, Turn.FLEET, 0, partial(self._world.revive, robot_id))

    def _plan_next(self) -> None:
        """Who thinks for a shorter time comes before who began to think earlier."""
        next_s = self._arrivals.next_s
        if next_s is None or next_s > self._ends_s or (self._due_s is not None and self._due_s <= next_s):
            return
        self._due_s = next_s
        self._engine.at(round(next_s * NANO), Turn.ARRIVAL, 0, partial(self._arrive, next_s))

    def _arrive(self, now_s: float) -> None:
        if self._due_s != now_s:
            return  # an earlier one took its place
        self._due_s = None
        for planned in self._arrivals.due(now_s):
            job_id = f"job-{planned.number}"
            self._planned[job_id] = planned
            klass = self._classes[planned.body["name"]]
            self._ledger.came(planned.number, klass, self._engine.now_ns)
            try:
                self._world.submit(job_id, msgspec.convert(planned.body, JobSpec))
            except Full:
                self._leave(job_id, Fate.ABANDONED)
        self._plan_next()

    def _note(self, now_ns: int, fact: Fact) -> None:
        if not fact.announced:
            return
        job = fact.record.job
        number = self._planned[job.job_id].number
        worked = number in self._at
        if worked and job.status is not JobStatus.RUNNING:
            self._stop(number, job.status is JobStatus.COMPLETED)
        if job.status is JobStatus.PENDING:
            self._wait(job.job_id, number, fact.record.due_wall_ns - WALL_NS)
        elif job.status is JobStatus.RUNNING:
            self._begin(number, str(job.robot_id))
        elif job.status in TERMINAL:
            served = job.status is JobStatus.COMPLETED
            self._leave(job.job_id, Fate.SERVED if served else Fate.FAILED if worked else Fate.ABANDONED)

    def _wait(self, job_id: str, number: int, due_ns: int) -> None:
        now_ns = self._engine.now_ns
        self._ledger.turns(number, Cell.HELD if due_ns > now_ns else Cell.WAITING, now_ns)
        if due_ns > now_ns:
            self._engine.at(due_ns, Turn.FLEET, 0, partial(self._is_due, job_id, number))

    def _is_due(self, job_id: str, number: int) -> None:
        if job_id in self._planned and number not in self._at:
            self._ledger.turns(number, Cell.WAITING, self._engine.now_ns)

    def _begin(self, number: int, robot_id: str) -> None:
        if number in self._at:
            return
        slot = self._free[robot_id].pop()
        self._at[number] = robot_id, slot
        self._ledger.turns(number, Cell.WORKING, self._engine.now_ns)
        self._ledger.robot_works(slot, self._engine.now_ns)

    def _stop(self, number: int, done: bool) -> None:
        robot_id, slot = self._at.pop(number)
        self._free[robot_id].append(slot)
        self._ledger.robot_stops(slot, self._engine.now_ns, done)

    def _leave(self, job_id: str, fate: Fate) -> None:
        planned = self._planned.pop(job_id)
        self._ledger.leaves(planned.number, self._engine.now_ns, fate)
        self._arrivals.ended(planned.number, self._engine.now_ns / NANO)
        self._plan_next()


def _slots(robots: dict[str, RobotProfile]) -> dict[str, list[int]]:
    """Of each robot, one for each job that it can do at once; numbered through."""
    found: dict[str, list[int]] = {}
    number = 0
    for robot_id, profile in robots.items():
        number += profile.max_concurrent_jobs
        found[robot_id] = list(range(number - 1, number - 1 - profile.max_concurrent_jobs, -1))
    return found
