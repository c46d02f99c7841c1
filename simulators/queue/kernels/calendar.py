"""An event calendar in arrays (`layout.py`): robots, jobs and rules as `simulators/queue/plain.py` has them.

What follows says the same as that file, and a test holds one against the other.
"""

from __future__ import annotations

import numpy as np

from simulators.jit import compiled, inlined
from simulators.keyed import Purpose, sample_ns, uniforms
from simulators.queue.kernels.heaps import first_key, item, push, remove, second_key, size
from simulators.queue.kernels.layout import (
    ARRIVING,
    MOST_EXPONENT,
    NEVER,
    NOBODY,
    Box,
    Counts,
    Fleet,
    Job,
    Joining,
    Klass,
    Robot,
    Row,
    Stop,
    counts_of,
    job_item,
    later,
    row_of,
)
from simulators.queue.kernels.matching import change, find_job, find_robot, stop_work
from simulators.queue.kernels.repairs import break_down, mend, wear
from simulators.queue.kernels.tally import (
    Cell,
    Clock,
    Fate,
    note_arrival,
    note_done,
    note_end,
    note_span,
    note_work,
)

# -- the loop


@compiled
def run(
    box, heaps, places, jobs, robots, fleets, classes, key, rows, points, joins,
    clock, cells, times, batches, work, came_ns, klass, work_ns, patience_ns, first, last, told,
):  # fmt: skip
    """Until it stops for one of the reasons of Stop. The jobs that come next are those from place
    NUMBER - `first` of the arrays on; `last` if there are no more after them. Closed users come when they
    have thought. Into `told` [number - 1, 4] goes when each job began first and left, its fate and how long
    it waited, unless it is empty."""
    calendar, count, ends_ns = heaps[Row.CALENDAR], len(klass), clock[Clock.END]
    while True:
        place = box[Box.NUMBER] - first
        if place >= count and not last:
            return Stop.JOBS
        event_ns = first_key(calendar) if size(calendar) > 0 else NEVER
        arrival_ns = came_ns[place] if place < count and not box[Box.CLOSED] else NEVER
        now_ns = min(event_ns, arrival_ns)
        if now_ns > ends_ns or (now_ns == ends_ns and second_key(calendar) >= ARRIVING):
            return Stop.END  # nobody comes at the very end
        if arrival_ns < event_ns:
            which, turn, slot = NOBODY, ARRIVING, box[Box.FREE]
            if slot == NOBODY:
                return Stop.ROOM
        else:
            which, turn = item(calendar, 1), second_key(calendar)
            slot = which - 2 * box[Box.ROBOTS]
            remove(calendar, places[0], which)
        if turn >= ARRIVING:
            arrive(
                box, heaps, places, jobs, robots, fleets, classes, key, rows, points, joins, clock, cells,
                times, batches, work, slot, klass[place], work_ns[place], patience_ns[place], now_ns, told,
            )  # fmt: skip
        elif slot >= 0:
            if jobs[slot, Job.STATE] == Cell.WAITING:
                remove(heaps[row_of(box, classes, jobs, slot)], places[1], which)
                change(jobs, slot, Cell.HELD, clock, cells, now_ns)
                leave(
                    box, heaps, places, jobs, key, rows, points, clock, cells, times, batches, slot,
                    Fate.ABANDONED, now_ns, told,
                )  # fmt: skip
            else:
                change(jobs, slot, Cell.WAITING, clock, cells, now_ns)
                find_robot(
                    box, heaps, places, jobs, robots, fleets, classes, clock, cells, work, slot, True, now_ns
                )
        elif which % 2 == 0:
            complete(
                box, heaps, places, jobs, robots, fleets, classes, key, rows, points, clock, cells, times,
                batches, work, which // 2, now_ns, told,
            )  # fmt: skip
        elif robots[which // 2, Robot.UP]:
            break_down(
                box, heaps, places, jobs, robots, fleets, classes, key, rows, points, clock, cells, work,
                which // 2, now_ns,
            )  # fmt: skip
        else:
            mend(
                box, heaps, places, jobs, robots, fleets, classes, key, rows, points, clock, cells, work,
                which // 2, now_ns,
            )  # fmt: skip


# -- jobs come and go


@inlined
def stays(box, key, joins, number):
    """Whether a job that arrives joins those who are there."""
    if box[Box.JOINING] == Joining.ALWAYS:
        return True
    there = box[Box.THERE]
    share, _ = uniforms(key, Purpose.JOIN, number, 0)
    if box[Box.JOINING] == Joining.DISCOURAGED:
        return share < 1.0 / (there + 1)
    return share < joins[min(there, len(joins) - 1)]


@inlined
def arrive(
    box, heaps, places, jobs, robots, fleets, classes, key, rows, points, joins, clock, cells, times,
    batches, work, slot, klass, work_ns, patience_ns, now_ns, told,
):  # fmt: skip
    number = box[Box.NUMBER]
    box[Box.NUMBER] += 1
    fate = Fate.THERE
    if box[Box.THERE] >= box[Box.CAPACITY]:
        fate = Fate.BLOCKED
    elif not stays(box, key, joins, number):
        fate = Fate.BALKED
    note_arrival(clock, cells, klass, now_ns, fate)
    if fate != Fate.THERE:
        if number <= len(told):
            told[number - 1, 0], told[number - 1, 1] = 0, now_ns
            told[number - 1, 2], told[number - 1, 3] = fate, 0
        if box[Box.CLOSED]:
            think(box, heaps, places, key, rows, points, slot, number, now_ns)
        return
    if not box[Box.CLOSED]:
        box[Box.FREE] = jobs[slot, Job.NEXT]
    box[Box.THERE] += 1
    jobs[slot, Job.NUMBER], jobs[slot, Job.KLASS] = number, klass
    jobs[slot, Job.WORK] = jobs[slot, Job.LEFT] = work_ns
    jobs[slot, Job.CAME] = jobs[slot, Job.DUE] = jobs[slot, Job.SINCE] = now_ns
    jobs[slot, Job.STATE], jobs[slot, Job.WAITED], jobs[slot, Job.BEGAN] = Cell.WAITING, 0, NEVER
    jobs[slot, Job.PATIENCE], jobs[slot, Job.ATTEMPT], jobs[slot, Job.HEAD] = patience_ns, 1, 0
    jobs[slot, Job.ROBOT], jobs[slot, Job.THERE] = NOBODY, 1
    find_robot(box, heaps, places, jobs, robots, fleets, classes, clock, cells, work, slot, True, now_ns)


@inlined
def think(box, heaps, places, key, rows, points, slot, number, now_ns):
    thinks_ns = sample_ns(rows, points, len(rows) - 1, key, Purpose.THINK, number, 0)
    push(heaps[Row.CALENDAR], places[0], now_ns + thinks_ns, ARRIVING + slot, job_item(box, slot))


@inlined
def leave(
    box, heaps, places, jobs, key, rows, points, clock, cells, times, batches, slot, fate, now_ns, told
):
    number, klass, came_ns = jobs[slot, Job.NUMBER], jobs[slot, Job.KLASS], jobs[slot, Job.CAME]
    waited_ns = jobs[slot, Job.WAITED]
    remove(heaps[Row.CALENDAR], places[0], job_item(box, slot))
    note_end(clock, cells, times, batches, klass, number, came_ns, now_ns, waited_ns, fate)
    if number <= len(told):
        told[number - 1, 0], told[number - 1, 1] = jobs[slot, Job.BEGAN], now_ns
        told[number - 1, 2], told[number - 1, 3] = fate, waited_ns
    box[Box.THERE] -= 1
    jobs[slot, Job.THERE] = 0
    if box[Box.CLOSED]:
        think(box, heaps, places, key, rows, points, slot, number, now_ns)
    else:
        jobs[slot, Job.NEXT] = box[Box.FREE]
        box[Box.FREE] = slot


@inlined
def complete(
    box, heaps, places, jobs, robots, fleets, classes, key, rows, points, clock, cells, times, batches,
    work, robot, now_ns, told,
):  # fmt: skip
    slot, fleet = robots[robot, Robot.JOB], robots[robot, Robot.FLEET]
    stop_work(box, heaps, places, jobs, robots, fleets, clock, cells, work, robot, Cell.HELD, now_ns)
    robots[robot, Robot.JOB] = NOBODY
    fails = fleets[fleet, Fleet.FAILS] > 0.0
    if fails:
        share, _ = uniforms(key, Purpose.FAILURE, jobs[slot, Job.NUMBER], jobs[slot, Job.ATTEMPT])
        fails = share < fleets[fleet, Fleet.FAILS]
    if fails and jobs[slot, Job.ATTEMPT] < classes[jobs[slot, Job.KLASS], Klass.ATTEMPTS]:
        try_again(
            box, heaps, places, jobs, robots, fleets, classes, key, rows, points, clock, cells, work, slot,
            now_ns,
        )  # fmt: skip
    else:
        fate = Fate.FAILED if fails else Fate.SERVED
        if not fails:
            note_done(clock, work, robot, now_ns)
        leave(
            box, heaps, places, jobs, key, rows, points, clock, cells, times, batches, slot, fate, now_ns,
            told,
        )  # fmt: skip
    find_job(box, heaps, places, jobs, robots, fleets, classes, key, clock, cells, robot, now_ns)


@compiled
def try_again(
    box, heaps, places, jobs, robots, fleets, classes, key, rows, points, clock, cells, work, slot, now_ns
):
    """At once, or after a back-off: full jitter, as in fleet/retry.py."""
    number, attempt, klass = jobs[slot, Job.NUMBER], jobs[slot, Job.ATTEMPT], jobs[slot, Job.KLASS]
    doubled = box[Box.BACKOFF_BASE] * 2.0 ** min(attempt - 1, MOST_EXPONENT)
    share, _ = uniforms(key, Purpose.BACKOFF, number, attempt)
    wait_ns = np.int64(share * min(float(box[Box.BACKOFF_MOST]), doubled))
    jobs[slot, Job.ATTEMPT] += 1
    if classes[klass, Klass.ANEW]:
        jobs[slot, Job.WORK] = sample_ns(rows, points, klass, key, Purpose.SERVICE, number, attempt)
    jobs[slot, Job.LEFT] = jobs[slot, Job.WORK]
    jobs[slot, Job.DUE] = now_ns + wait_ns
    if wait_ns > 0:
        turn = later(box, number)
        push(heaps[Row.CALENDAR], places[0], now_ns + wait_ns, turn, job_item(box, slot))
        return
    change(jobs, slot, Cell.WAITING, clock, cells, now_ns)
    find_robot(box, heaps, places, jobs, robots, fleets, classes, clock, cells, work, slot, True, now_ns)


# -- the beginning and the end


@compiled
def open_up(box, heaps, places, jobs, robots, fleets, key, rows, points):
    """At time 0, when everybody is idle and nobody is there."""
    for robot in range(box[Box.ROBOTS]):
        push(heaps[Row.IDLE + robots[robot, Robot.FLEET]], places[1], 0, robot, 2 * robot)
        if counts_of(fleets, robots[robot, Robot.FLEET]) != Counts.NEVER:
            wear(box, heaps, places, robots, fleets, key, rows, points, robot, 0)
    if box[Box.CLOSED]:
        for user in range(len(jobs)):
            thinks_ns = sample_ns(rows, points, len(rows) - 1, key, Purpose.THINK, 0, user)
            push(heaps[Row.CALENDAR], places[0], thinks_ns, ARRIVING + user, job_item(box, user))


@compiled
def close(jobs, robots, clock, cells, work):
    """What is still under way counts up to the end."""
    end_ns = clock[Clock.END]
    for slot in range(len(jobs)):
        if jobs[slot, Job.THERE]:
            note_span(
                clock, cells, jobs[slot, Job.KLASS], jobs[slot, Job.STATE], jobs[slot, Job.SINCE], end_ns
            )
    for robot in range(len(robots)):
        if not robots[robot, Robot.UP]:
            note_span(clock, cells, 0, Cell.DOWN, robots[robot, Robot.SINCE], end_ns)
        elif robots[robot, Robot.JOB] != NOBODY:
            note_work(clock, work, robot, robots[robot, Robot.SINCE], end_ns)
