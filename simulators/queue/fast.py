"""Plays a scenario once with the kernels: millions of jobs a second."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np

from simulators.job_draws import JobDraws, open_model
from simulators.keyed import NANO, Ints
from simulators.queue.arrays import World, can, fleet_of_slots, slots_of, with_room, world_of
from simulators.queue.kernels import calendar, fifo
from simulators.queue.kernels.calendar import Stop
from simulators.queue.kernels.tally import Tally, new_tally
from simulators.scenario import ClosedArrivals, Jobs, Scenario

AT_ONCE = 4_096  # jobs of closed users that are drawn
MAX_THERE = 10_000_000  # jobs at once
NOTHING: Ints = np.zeros((0, 4), np.int64)


def undone(scenario: Scenario) -> list[str]:
    """What the rules of the lab do not have, and production has: by the names of the fields."""
    asked = {
        f"jobs.classes.{name}.timeout": each.timeout is not None
        for name, each in (scenario.jobs.classes if scenario.jobs else {}).items()
    }
    for name, fleet in scenario.fleets.items():
        asked[f"fleets.{name}.heartbeats.loss"] = fleet.heartbeats.loss > 0
        asked[f"fleets.{name}.max_concurrent_jobs"] = (
            fleet.max_concurrent_jobs > 1 and len(scenario.fleets) > 1
        )
    return [name for name, there in asked.items() if there]


def is_fifo(scenario: Scenario) -> bool:
    """Whether who is free first takes the job that came first, and there is nothing else to it."""
    jobs, queue = scenario.jobs, scenario.queue
    if jobs is None or isinstance(jobs.arrivals, ClosedArrivals):
        return False
    classes, fleets = list(jobs.classes.values()), list(scenario.fleets.values())
    alike = len({each.priority for each in classes}) == 1
    in_order = queue.discipline == "fifo" or queue.aging == 0
    return (
        (in_order or (alike and queue.discipline in ("production", "priority", "preemptive")))
        and queue.capacity is None
        and queue.balking is None
        and all(each.patience is None for each in classes)
        and all(fleet.breakdowns is None and fleet.failure_probability == 0 for fleet in fleets)
        and all(can(fleet, each) for fleet in fleets for each in classes)
    )


def play(scenario: Scenario, folder: Path, seed: int, warm_up_ns: int = 0, told: Ints = NOTHING) -> Tally:
    """`told` [number - 1, 4]: of each job, when it began first and left, its fate and how long it waited; it
    must have room for all that come, or for none. Raises Misuse for a trace that cannot be read."""
    assert scenario.jobs is not None
    lasts_ns = round(scenario.lasts_s * NANO)
    tally = new_tally(lasts_ns, warm_up_ns, len(scenario.jobs.classes), slots_of(scenario))
    serve = _serve if is_fifo(scenario) else _step
    serve(scenario, scenario.jobs, folder, seed, tally, told)
    return tally


def _serve(scenario: Scenario, jobs: Jobs, folder: Path, seed: int, tally: Tally, told: Ints) -> None:
    draws, blocks = open_model(jobs, scenario.load, seed, folder)
    speeds = np.array([fleet.speed for fleet in scenario.fleets.values()])[fleet_of_slots(scenario)]
    free_ns, robots = np.zeros(len(speeds), np.int64), np.arange(len(speeds))
    first = 1
    for came_ns in blocks:
        drawn = draws.of(first, len(came_ns))
        fifo.serve(*tally, free_ns, robots, speeds, first, came_ns, drawn.klass, drawn.work_ns, told)
        first += len(came_ns)


def _step(scenario: Scenario, jobs: Jobs, folder: Path, seed: int, tally: Tally, told: Ints) -> None:
    """Event by event."""
    draws, blocks = _stream(scenario, jobs, folder, seed)
    world = world_of(scenario, jobs, seed)
    calendar.open_up(*world[:6], *world[7:10])
    first, why = 1, Stop.JOBS
    while why != Stop.END:
        came_ns = next(blocks, None)
        last = came_ns is None
        came_ns = np.empty(0, np.int64) if came_ns is None else came_ns
        drawn = draws.of(first, len(came_ns))
        why = Stop.ROOM
        while why == Stop.ROOM:
            why = calendar.run(*world, *tally, came_ns, *drawn, first, last, told)
            world = _grown(world) if why == Stop.ROOM else world
        first += len(came_ns)
    calendar.close(world.jobs, world.robots, tally.clock, tally.cells, tally.robots)


def _stream(scenario: Scenario, jobs: Jobs, folder: Path, seed: int) -> tuple[JobDraws, Iterator[Ints]]:
    if isinstance(jobs.arrivals, ClosedArrivals):
        return JobDraws(jobs, seed), repeat(np.zeros(AT_ONCE, np.int64))
    return open_model(jobs, scenario.load, seed, folder)


def _grown(world: World) -> World:
    return with_room(world, 2 * len(world.jobs))
