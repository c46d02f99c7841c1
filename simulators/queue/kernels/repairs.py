"""Robots break, and are mended, on the event calendar."""

from __future__ import annotations

import numpy as np

from simulators.jit import compiled
from simulators.keyed import Purpose, sample_ns
from simulators.queue.kernels.heaps import item, push, remove, size
from simulators.queue.kernels.layout import (
    NOBODY,
    AtBreak,
    Box,
    Counts,
    Discipline,
    Fleet,
    Job,
    Robot,
    Row,
    counts_of,
)
from simulators.queue.kernels.matching import begin, change, find_job, find_robot, stop_work, wait
from simulators.queue.kernels.tally import Cell, note_span


@compiled
def break_down(
    box, heaps, places, jobs, robots, fleets, classes, key, rows, points, clock, cells, work, robot, now_ns
):
    slot, fleet = robots[robot, Robot.JOB], robots[robot, Robot.FLEET]
    if slot == NOBODY:
        remove(heaps[Row.IDLE + fleet], places[1], 2 * robot)
    else:
        stop_work(box, heaps, places, jobs, robots, fleets, clock, cells, work, robot, Cell.HELD, now_ns)
    robots[robot, Robot.UP], robots[robot, Robot.SINCE] = 0, now_ns
    if box[Box.CREW] > 0:
        box[Box.CREW] -= 1
        repair(box, heaps, places, robots, key, rows, points, robot, now_ns)
    else:
        push(heaps[Row.REPAIRS], places[1], now_ns, robot, 2 * robot)
    if slot == NOBODY:
        return
    if np.int64(fleets[fleet, Fleet.AT_BREAK]) == AtBreak.RESTARTS:
        jobs[slot, Job.LEFT] = jobs[slot, Job.WORK]
    elif np.int64(fleets[fleet, Fleet.AT_BREAK]) == AtBreak.HEAD:
        robots[robot, Robot.JOB], jobs[slot, Job.HEAD] = NOBODY, 1
        change(jobs, slot, Cell.WAITING, clock, cells, now_ns)
        find_robot(box, heaps, places, jobs, robots, fleets, classes, clock, cells, work, slot, False, now_ns)


@compiled
def repair(box, heaps, places, robots, key, rows, points, robot, now_ns):
    which = box[Box.CLASSES] + box[Box.FLEETS] + robots[robot, Robot.FLEET]
    takes_ns = sample_ns(rows, points, which, key, Purpose.REPAIR, robot, robots[robot, Robot.TIMES])
    push(heaps[Row.CALENDAR], places[0], now_ns + takes_ns, 2 * robot + 1, 2 * robot + 1)


@compiled
def wear(box, heaps, places, robots, fleets, key, rows, points, robot, now_ns):
    """From new on: until it breaks."""
    fleet = robots[robot, Robot.FLEET]
    which = box[Box.CLASSES] + fleet
    lasts_ns = sample_ns(rows, points, which, key, Purpose.UP, robot, robots[robot, Robot.TIMES])
    robots[robot, Robot.WEAR] = lasts_ns
    if counts_of(fleets, fleet) == Counts.ALWAYS:
        push(heaps[Row.CALENDAR], places[0], now_ns + lasts_ns, 2 * robot + 1, 2 * robot + 1)


@compiled
def mend(
    box, heaps, places, jobs, robots, fleets, classes, key, rows, points, clock, cells, work, robot, now_ns
):
    note_span(clock, cells, 0, Cell.DOWN, robots[robot, Robot.SINCE], now_ns)
    robots[robot, Robot.UP] = 1
    robots[robot, Robot.TIMES] += 1
    wear(box, heaps, places, robots, fleets, key, rows, points, robot, now_ns)
    if size(heaps[Row.REPAIRS]) > 0:
        broken = item(heaps[Row.REPAIRS], 1) // 2
        remove(heaps[Row.REPAIRS], places[1], 2 * broken)
        repair(box, heaps, places, robots, key, rows, points, broken, now_ns)
    else:
        box[Box.CREW] += 1
    slot = robots[robot, Robot.JOB]
    if slot != NOBODY and box[Box.DISCIPLINE] == Discipline.PREEMPTIVE:  # who is more urgent goes first
        robots[robot, Robot.JOB] = NOBODY
        change(jobs, slot, Cell.WAITING, clock, cells, now_ns)
        wait(box, heaps, places, jobs, classes, slot, False, now_ns)
        slot = NOBODY
    if slot == NOBODY:
        find_job(box, heaps, places, jobs, robots, fleets, classes, key, clock, cells, robot, now_ns)
    else:
        begin(box, heaps, places, jobs, robots, fleets, classes, clock, cells, slot, robot, now_ns)
