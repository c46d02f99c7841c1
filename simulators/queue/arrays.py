"""A scenario as the arrays that `kernels/layout.py` describes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fleet.dispatch import fits
from fleet.limits import MS, Limits
from simulators.distributions import Constant, Distribution
from simulators.keyed import NANO, Floats, Ints, Key, key_of, table_of
from simulators.queue.kernels.heaps import new_heaps
from simulators.queue.kernels.layout import (
    NEVER,
    NOBODY,
    AtBreak,
    Box,
    Counts,
    Discipline,
    Fleet,
    Job,
    Joining,
    Robot,
    Row,
)
from simulators.scenario import ClosedArrivals, Discouraged, JobClass, Jobs, Joins, Scenario
from simulators.scenario import Fleet as FleetPart
from simulators.scenario import Queue as QueuePart

ROOM = 64  # jobs there at once, to begin with
INSTANT = Constant.model_construct(kind="constant", value=0.0)  # of what never happens


class World(NamedTuple):
    """As the functions of the kernel hand it on."""

    box: Ints
    heaps: Ints
    places: Ints
    jobs: Ints
    robots: Ints
    fleets: Floats
    classes: Ints
    key: Key
    rows: Floats
    points: Floats
    joins: Floats


def can(fleet: FleetPart, each: JobClass) -> bool:
    """Whether such a robot can do such a job, as the dispatcher has it."""
    needs = (each.environment, frozenset(each.required_capabilities))
    return fits(needs, (fleet.environment, frozenset(fleet.capabilities)))


def slots_of(scenario: Scenario) -> int:
    """How many jobs its robots can do at once."""
    return sum(fleet.count * fleet.max_concurrent_jobs for fleet in scenario.fleets.values())


def fleet_of_slots(scenario: Scenario) -> Ints:
    """The place of its fleet, of each robot; who does several jobs at once is as many here."""
    counts = [fleet.count * fleet.max_concurrent_jobs for fleet in scenario.fleets.values()]
    return np.repeat(np.arange(len(counts)), counts)


def world_of(scenario: Scenario, jobs: Jobs, seed: int) -> World:
    classes, groups = _classes(scenario, jobs)
    users = jobs.arrivals.users if isinstance(jobs.arrivals, ClosedArrivals) else 0
    robots = _robots(scenario)
    box = _box(scenario, len(robots), len(jobs.classes), groups, users > 0)
    rows = Row.IDLE + 2 * len(scenario.fleets) + 2 * groups
    table = table_of(_distributions(scenario, jobs))
    balking = scenario.queue.balking
    world = World(
        box=box,
        heaps=new_heaps(rows, 0),
        places=np.zeros((2, 2 * len(robots)), np.int64),
        jobs=np.zeros((0, len(Job)), np.int64),
        robots=robots,
        fleets=np.array([_fleet(each) for each in scenario.fleets.values()]),
        classes=classes,
        key=key_of(seed),
        rows=table.rows,
        points=table.points,
        joins=np.array(balking.probabilities if isinstance(balking, Joins) else [1.0]),
    )
    return with_slots(world, users or ROOM)


def with_slots(world: World, slots: int) -> World:
    """The same with more slots for jobs."""
    before, items = len(world.jobs), world.places.shape[1] + slots - len(world.jobs)
    heaps = new_heaps(len(world.heaps), items)
    heaps[:, : world.heaps.shape[1]] = world.heaps
    places = np.zeros((2, items), np.int64)
    places[:, : world.places.shape[1]] = world.places
    jobs = np.zeros((slots, len(Job)), np.int64)
    jobs[:before] = world.jobs
    jobs[before:, Job.NEXT] = np.arange(before + 1, slots + 1)
    jobs[-1, Job.NEXT] = world.box[Box.FREE]
    world.box[Box.FREE] = before
    return world._replace(heaps=heaps, places=places, jobs=jobs)


def _box(scenario: Scenario, robots: int, classes: int, groups: int, closed: bool) -> Ints:
    queue = scenario.queue
    box = np.zeros(len(Box), np.int64)
    box[Box.DISCIPLINE] = Discipline[queue.discipline.upper()]
    box[Box.CAPACITY] = NEVER if queue.capacity is None else queue.capacity
    box[Box.AGING] = aging_ns(queue)
    box[Box.BACKOFF_BASE], box[Box.BACKOFF_MOST] = backoff_ns(queue)
    box[Box.JOINING] = (
        Joining.ALWAYS
        if queue.balking is None
        else Joining.DISCOURAGED
        if isinstance(queue.balking, Discouraged)
        else Joining.TABLE
    )
    box[Box.CLOSED] = closed
    box[Box.ROBOTS], box[Box.CLASSES] = robots, classes
    box[Box.FLEETS], box[Box.GROUPS] = len(scenario.fleets), groups
    box[Box.CREW] = robots if scenario.repair_crew is None else scenario.repair_crew
    box[Box.FREE], box[Box.NUMBER] = NOBODY, 1
    return box


def aging_ns(queue: QueuePart) -> int:
    """What a level of priority is worth; production's, if it says nothing."""
    return Limits().aging_ms_per_level * MS if queue.aging is None else round(queue.aging * NANO)


def backoff_ns(queue: QueuePart) -> tuple[int, int]:
    """Base and most; production's, if it says nothing."""
    if queue.backoff is None:
        return Limits().backoff_base_ms * MS, Limits().backoff_max_ms * MS
    return round(queue.backoff.base * NANO), round(queue.backoff.most * NANO)


def _robots(scenario: Scenario) -> Ints:
    fleets = fleet_of_slots(scenario)
    robots = np.zeros((len(fleets), len(Robot)), np.int64)
    robots[:, Robot.FLEET] = fleets
    robots[:, Robot.JOB] = NOBODY
    robots[:, Robot.UP] = 1
    return robots


def _fleet(fleet: FleetPart) -> list[float]:
    found = [0.0] * len(Fleet)
    found[Fleet.SPEED], found[Fleet.FAILS] = fleet.speed, fleet.failure_probability
    if fleet.breakdowns is not None:
        found[Fleet.COUNTS] = Counts[fleet.breakdowns.counts.upper()]
        found[Fleet.AT_BREAK] = AtBreak[fleet.breakdowns.job.upper()]
    return found


def _classes(scenario: Scenario, jobs: Jobs) -> tuple[Ints, int]:
    """Classes that the same fleets can do are a group, and wait together; the rows of groups come after those
    of classes."""
    can_do = [
        tuple(int(can(fleet, each)) for fleet in scenario.fleets.values()) for each in jobs.classes.values()
    ]
    groups = list(dict.fromkeys(can_do))
    rows = [
        [each.priority, each.max_attempts, each.each_attempt == "anew", groups.index(fleets), *fleets]
        for each, fleets in zip(jobs.classes.values(), can_do, strict=True)
    ]
    rows += [[0, 0, 0, number, *fleets] for number, fleets in enumerate(groups)]
    return np.array(rows, dtype=np.int64), len(groups)


def _distributions(scenario: Scenario, jobs: Jobs) -> list[Distribution]:
    breakdowns = [fleet.breakdowns for fleet in scenario.fleets.values()]
    return [
        *(each.service for each in jobs.classes.values()),
        *(each.up if each else INSTANT for each in breakdowns),
        *(each.repair if each else INSTANT for each in breakdowns),
        jobs.arrivals.think if isinstance(jobs.arrivals, ClosedArrivals) else INSTANT,
    ]
