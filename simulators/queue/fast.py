"""Plays a scenario once with the kernels: millions of jobs a second."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np

from fleet.errors import Misuse
from simulators.job_draws import JobDraws, open_model
from simulators.keyed import NANO, Ints
from simulators.queue.arrays import (
    World,
    aging_ns,
    can,
    fleet_of_slots,
    slots_of,
    with_slots,
    world_of,
)
from simulators.queue.kernels import calendar, fifo, ordered
from simulators.queue.kernels.layout import LEVEL_BITS, Stop
from simulators.queue.kernels.ordered import new_line, with_room
from simulators.queue.kernels.tally import NOTHING, Tally, new_tally
from simulators.scenario import ClosedArrivals, Jobs, Scenario

AT_ONCE = 4_096  # jobs of closed users that are drawn
MAX_THERE = 10_000_000  # jobs at once; fewer, where there are more than a few rows of heaps
FEW_ROWS = 6


def undone(scenario: Scenario) -> list[str]:
    """What the rules of the lab do not have, and production has: by the names of the fields."""
    asked = {
        f"jobs.classes.{name}.timeout": each.timeout is not None
        for name, each in (scenario.jobs.classes if scenario.jobs else {}).items()
    }
    asked["faults"] = bool(scenario.faults)
    for name, fleet in scenario.fleets.items():
        asked[f"fleets.{name}.heartbeats.loss"] = fleet.heartbeats.loss > 0
        asked[f"fleets.{name}.max_concurrent_jobs"] = (
            fleet.max_concurrent_jobs > 1 and len(scenario.fleets) > 1
        )
    return [name for name, there in asked.items() if there]


def is_plain(scenario: Scenario) -> bool:
    """Whoever comes waits until any robot serves it, from its beginning to its end."""
    jobs, queue = scenario.jobs, scenario.queue
    if jobs is None or isinstance(jobs.arrivals, ClosedArrivals):
        return False
    classes, fleets = list(jobs.classes.values()), list(scenario.fleets.values())
    return (
        queue.capacity is None
        and queue.balking is None
        and all(each.patience is None for each in classes)
        and all(fleet.breakdowns is None and fleet.failure_probability == 0 for fleet in fleets)
        and all(can(fleet, each) for fleet in fleets for each in classes)
    )


def order_of(scenario: Scenario) -> tuple[int, Ints] | None:
    """If it is `slope` times the arrival plus something for each class: these; (1, 0) is first come first
    served."""
    assert scenario.jobs is not None
    queue = scenario.queue
    levels = np.array([each.priority for each in scenario.jobs.classes.values()])
    alike = len(set(levels.tolist())) == 1
    if queue.discipline == "lifo":
        return -1, 0 * levels
    if queue.discipline == "fifo" or (alike and queue.discipline != "random"):
        return 1, 0 * levels
    if queue.discipline == "production":
        return 1, levels * aging_ns(queue)
    return (1, levels << LEVEL_BITS) if queue.discipline == "priority" else None


def play(scenario: Scenario, folder: Path, seed: int, warm_up_ns: int = 0, told: Ints = NOTHING) -> Tally:
    """`told` [number - 1, 4]: of each job, when it began first and left, its fate and how long it waited; of
    as many as there is room for. Raises Misuse for a trace that cannot be read."""
    assert scenario.jobs is not None
    lasts_ns = round(scenario.lasts_s * NANO)
    tally = new_tally(lasts_ns, warm_up_ns, len(scenario.jobs.classes), slots_of(scenario))
    order = order_of(scenario) if is_plain(scenario) else None
    if order is None:
        _step(scenario, scenario.jobs, folder, seed, tally, told)
    else:
        _serve(scenario, scenario.jobs, folder, seed, tally, told, *order)
    return tally


def _serve(
    scenario: Scenario,
    jobs: Jobs,
    folder: Path,
    seed: int,
    tally: Tally,
    told: Ints,
    slope: int,
    offsets: Ints,
) -> None:
    draws, blocks = open_model(jobs, scenario.load, seed, folder)
    speeds = np.array([fleet.speed for fleet in scenario.fleets.values()])[fleet_of_slots(scenario)]
    robots = np.zeros(len(speeds), np.int64), np.arange(len(speeds)), speeds
    in_order, line, first = slope == 1 and not offsets.any(), new_line(0), 1
    for came_ns in blocks:
        klass, work_ns, _ = draws.of(first, len(came_ns))
        if in_order:
            fifo.serve(*tally, *robots, first, came_ns, klass, work_ns, told)
        else:
            line = with_room(line, len(came_ns))
            _check_room(int(line[0, 0]))
            ordered.serve(*tally, line, *robots, slope, offsets, first, came_ns, klass, work_ns, told)
        first += len(came_ns)
    ordered.finish(*tally, line, *robots, told)


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


def get_ready() -> None:
    """Compiles whatever is not yet. Processes that did so at the same time would write over each other."""
    for discipline in ("fifo", "lifo", "random"):
        play(_anything(discipline), Path(), 1)


def _anything(discipline: str) -> Scenario:
    each = {"service": {"kind": "exponential", "mean": "1s"}}
    return Scenario.model_validate(
        {
            "name": "anything",
            "duration": "1s",
            "fleets": {"robots": {"count": 1, "heartbeats": {"interval": "60s"}}},
            "queue": {"discipline": discipline},
            "jobs": {"arrivals": {"kind": "poisson", "rate": 1.0}, "classes": {"one": each, "other": each}},
        }
    )


def _stream(scenario: Scenario, jobs: Jobs, folder: Path, seed: int) -> tuple[JobDraws, Iterator[Ints]]:
    if isinstance(jobs.arrivals, ClosedArrivals):
        return JobDraws(jobs, seed), repeat(np.zeros(AT_ONCE, np.int64))
    return open_model(jobs, scenario.load, seed, folder)


def _grown(world: World) -> World:
    _check_room(2 * len(world.jobs) * len(world.heaps) // FEW_ROWS)
    return with_slots(world, 2 * len(world.jobs))


def _check_room(jobs: int) -> None:
    if jobs > MAX_THERE:
        raise Misuse(
            f"more than {MAX_THERE // 2:,} jobs would wait at once: this queue grows and grows; let it end "
            "earlier, or give it more robots, a capacity or patience"
        )
