"""Jobs and robots find each other, on the event calendar."""

from __future__ import annotations

import numpy as np

from simulators.jit import compiled, inlined
from simulators.keyed import Purpose, uniforms
from simulators.queue.kernels.heaps import first_key, item, push, remove, second_key, size
from simulators.queue.kernels.layout import (
    NEVER,
    NOBODY,
    Box,
    Counts,
    Discipline,
    Fleet,
    Job,
    Klass,
    Robot,
    Row,
    busy_row,
    counts_of,
    head_row,
    job_item,
    later,
    order_of,
    row_of,
    served_ns,
    tie_of,
    waiting_row,
)
from simulators.queue.kernels.tally import Cell, note_span, note_work


@inlined
def change(jobs, slot, state, clock, cells, now_ns):
    since_ns, before = jobs[slot, Job.SINCE], jobs[slot, Job.STATE]
    note_span(clock, cells, jobs[slot, Job.KLASS], before, since_ns, now_ns)
    if before == Cell.WAITING:
        jobs[slot, Job.WAITED] += now_ns - since_ns
    jobs[slot, Job.SINCE], jobs[slot, Job.STATE] = now_ns, state


@inlined
def find_robot(box, heaps, places, jobs, robots, fleets, classes, clock, cells, work, slot, fresh, now_ns):
    """For a job that waits from now on: who has been idle longest; or, if it may interrupt, who does what is
    least urgent, and then for what that did. `fresh`: it may lose its patience."""
    while slot != NOBODY:
        fleet = first_of(box, heaps, classes, jobs[slot, Job.KLASS], Row.IDLE)
        if fleet != NOBODY:
            robot = item(heaps[Row.IDLE + fleet], 1) // 2
            remove(heaps[Row.IDLE + fleet], places[1], 2 * robot)
            begin(box, heaps, places, jobs, robots, fleets, classes, clock, cells, slot, robot, now_ns)
            return
        wait(box, heaps, places, jobs, classes, slot, fresh, now_ns)
        if box[Box.DISCIPLINE] != Discipline.PREEMPTIVE:
            return
        slot, fresh = (
            interrupt_for(
                box, heaps, places, jobs, robots, fleets, classes, clock, cells, work, slot, now_ns
            ),
            False,
        )


@inlined
def first_of(box, heaps, classes, klass, rows):
    """Of the fleets that can do such a job, the one whose row, `rows` and on, has the smallest entry."""
    found = NOBODY
    for fleet in range(box[Box.FLEETS]):
        row = heaps[rows + fleet]
        there = classes[klass, Klass.FITS + fleet] and size(row) > 0
        if there and (found == NOBODY or less(row, heaps[rows + found])):
            found = fleet
    return found


@inlined
def less(one, other):
    return first_key(one) < first_key(other) or (
        first_key(one) == first_key(other) and second_key(one) < second_key(other)
    )


@inlined
def wait(box, heaps, places, jobs, classes, slot, fresh, now_ns):
    order, tie = order_of(box, classes, jobs, slot), tie_of(box, jobs, slot)
    push(heaps[row_of(box, classes, jobs, slot)], places[1], order, tie, job_item(box, slot))
    patience_ns = jobs[slot, Job.PATIENCE]
    if fresh and patience_ns < NEVER:
        turn = later(box, jobs[slot, Job.NUMBER])
        push(heaps[Row.CALENDAR], places[0], now_ns + patience_ns, turn, job_item(box, slot))


@compiled
def interrupt_for(box, heaps, places, jobs, robots, fleets, classes, clock, cells, work, slot, now_ns):
    """The job that it interrupts, if there is one that is less urgent."""
    klass = jobs[slot, Job.KLASS]
    fleet = first_of(box, heaps, classes, klass, busy_row(box, 0))
    if fleet == NOBODY:
        return NOBODY
    robot = item(heaps[busy_row(box, fleet)], 1) // 2
    other = robots[robot, Robot.JOB]
    if classes[klass, Klass.PRIORITY] >= classes[jobs[other, Job.KLASS], Klass.PRIORITY]:
        return NOBODY
    stop_work(box, heaps, places, jobs, robots, fleets, clock, cells, work, robot, Cell.WAITING, now_ns)
    remove(heaps[row_of(box, classes, jobs, slot)], places[1], job_item(box, slot))
    begin(box, heaps, places, jobs, robots, fleets, classes, clock, cells, slot, robot, now_ns)
    return other


@inlined
def find_job(box, heaps, places, jobs, robots, fleets, classes, key, clock, cells, robot, now_ns):
    """For a robot that has nothing to do."""
    slot = best(box, heaps, classes, key, robots[robot, Robot.FLEET])
    if slot == NOBODY:
        row = heaps[Row.IDLE + robots[robot, Robot.FLEET]]
        push(row, places[1], now_ns, robot, 2 * robot)
        return
    remove(heaps[row_of(box, classes, jobs, slot)], places[1], job_item(box, slot))
    begin(box, heaps, places, jobs, robots, fleets, classes, clock, cells, slot, robot, now_ns)


@inlined
def best(box, heaps, classes, key, fleet):
    """The slot of the waiting job that such a robot is to do next."""
    found = first_group(box, heaps, classes, fleet, head_row(box, 0))
    if found != NOBODY:
        return item(heaps[head_row(box, found)], 1) - 2 * box[Box.ROBOTS]
    found = first_group(box, heaps, classes, fleet, waiting_row(box, 0))
    if found == NOBODY:
        return NOBODY
    if box[Box.DISCIPLINE] == Discipline.RANDOM:
        return any_of(box, heaps, classes, key, fleet)
    return item(heaps[waiting_row(box, found)], 1) - 2 * box[Box.ROBOTS]


@inlined
def first_group(box, heaps, classes, fleet, rows):
    found = NOBODY
    for group in range(box[Box.GROUPS]):
        row = heaps[rows + group]
        there = can(box, classes, group, fleet) and size(row) > 0
        if there and (found == NOBODY or less(row, heaps[rows + found])):
            found = group
    return found


@compiled
def any_of(box, heaps, classes, key, fleet):
    """Whoever waits is as likely as any other; there must be one."""
    total = 0
    for group in range(box[Box.GROUPS]):
        if can(box, classes, group, fleet):
            total += size(heaps[waiting_row(box, group)])
    box[Box.PICKS] += 1
    share, _ = uniforms(key, Purpose.PICK, box[Box.PICKS], 0)
    place, group = np.int64(share * total), 0
    while True:
        row = heaps[waiting_row(box, group)]
        if can(box, classes, group, fleet):
            if place < size(row):
                return item(row, place + 1) - 2 * box[Box.ROBOTS]
            place -= size(row)
        group += 1


@inlined
def can(box, classes, group, fleet):
    """Rows of `classes` beyond the last class are of groups."""
    return classes[box[Box.CLASSES] + group, Klass.FITS + fleet]


@inlined
def begin(box, heaps, places, jobs, robots, fleets, classes, clock, cells, slot, robot, now_ns):
    """Or go on with what it had begun."""
    remove(heaps[Row.CALENDAR], places[0], job_item(box, slot))
    change(jobs, slot, Cell.WORKING, clock, cells, now_ns)
    jobs[slot, Job.BEGAN] = min(jobs[slot, Job.BEGAN], now_ns)
    jobs[slot, Job.ROBOT], jobs[slot, Job.HEAD] = robot, 0
    fleet = robots[robot, Robot.FLEET]
    ends_ns = now_ns + served_ns(jobs[slot, Job.LEFT], fleets[fleet, Fleet.SPEED])
    robots[robot, Robot.JOB], robots[robot, Robot.SINCE], robots[robot, Robot.ENDS] = slot, now_ns, ends_ns
    push(heaps[Row.CALENDAR], places[0], ends_ns, 2 * robot, 2 * robot)
    if counts_of(fleets, fleet) == Counts.WORKING:
        breaks_ns = now_ns + robots[robot, Robot.WEAR]
        push(heaps[Row.CALENDAR], places[0], breaks_ns, 2 * robot + 1, 2 * robot + 1)
    if box[Box.DISCIPLINE] == Discipline.PREEMPTIVE:
        order = order_of(box, classes, jobs, slot)
        push(heaps[busy_row(box, fleet)], places[1], -order, -jobs[slot, Job.NUMBER], 2 * robot)


@inlined
def stop_work(box, heaps, places, jobs, robots, fleets, clock, cells, work, robot, state, now_ns):
    """Whatever the reason; the robot keeps the job in mind."""
    slot, fleet = robots[robot, Robot.JOB], robots[robot, Robot.FLEET]
    note_work(clock, work, robot, robots[robot, Robot.SINCE], now_ns)
    change(jobs, slot, state, clock, cells, now_ns)
    speed, left_ns = fleets[fleet, Fleet.SPEED], robots[robot, Robot.ENDS] - now_ns
    jobs[slot, Job.LEFT] = left_ns if speed == 1.0 else np.int64(np.rint(left_ns * speed))
    remove(heaps[Row.CALENDAR], places[0], 2 * robot)
    remove(heaps[busy_row(box, fleet)], places[1], 2 * robot)
    if counts_of(fleets, fleet) == Counts.WORKING:
        robots[robot, Robot.WEAR] -= now_ns - robots[robot, Robot.SINCE]
        remove(heaps[Row.CALENDAR], places[0], 2 * robot + 1)
