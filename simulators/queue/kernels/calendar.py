"""An event calendar in arrays: robots, jobs and rules as `simulators/queue/plain.py` has them.

What follows says the same as that file, and a test holds one against the other. Whatever changes is in a few
arrays, which all functions hand on in the same order:

`box` counts and bounds [Box]; `heaps` rows as in `row_of_*`; `places` of [calendar, other heaps]; `jobs`
[slot, Job]; `robots` [robot, Robot]; `fleets` [fleet, Fleet]; `classes` [class, Klass and then, of each
fleet, whether it can]; `key`, `rows` and `points` of the draws, whose distributions are the work of each
class, then `up` and `repair` of each fleet, then how long users think; then the arrays of a Tally.

Items in heaps: 2 r is what robot r is about to complete, and itself where robots wait; 2 r + 1 when it
breaks or is mended; 2 R + s is the job in slot s.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from simulators.jit import compiled, inlined
from simulators.keyed import NANO, Purpose, sample_ns, uniforms
from simulators.queue.kernels.heaps import first_key, item, push, remove, second_key, size
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

NOBODY = -1
NEVER = 2**62
ARRIVING = 2**60  # of the second key of what arrives: after all else of its time
LEVEL_BITS = 58  # of the time within a level of strict priority: nine years
MOST_EXPONENT = 40  # as in fleet/retry.py


class Stop(IntEnum):
    """Why it came back: the end; it wants more jobs; it wants more slots."""

    END = 0
    JOBS = 1
    ROOM = 2


class Discipline(IntEnum):
    PRODUCTION = 0
    FIFO = 1
    LIFO = 2
    RANDOM = 3
    PRIORITY = 4
    PREEMPTIVE = 5


class Joining(IntEnum):
    ALWAYS = 0
    DISCOURAGED = 1
    TABLE = 2


class Counts(IntEnum):
    """When a robot wears."""

    NEVER = 0
    WORKING = 1
    ALWAYS = 2


class AtBreak(IntEnum):
    RESUMES = 0
    RESTARTS = 1
    HEAD = 2


class Box(IntEnum):
    DISCIPLINE = 0
    CAPACITY = 1
    AGING = 2
    BACKOFF_BASE = 3
    BACKOFF_MOST = 4
    JOINING = 5
    CLOSED = 6
    ROBOTS = 7
    CLASSES = 8
    FLEETS = 9
    GROUPS = 10
    CREW = 11  # who has nothing to repair
    THERE = 12  # jobs
    FREE = 13  # the first free slot
    NUMBER = 14  # of the next job
    PICKS = 15


class Job(IntEnum):
    NUMBER = 0
    KLASS = 1
    WORK = 2  # of this attempt, for a robot of speed 1
    LEFT = 3  # of that
    DUE = 4
    SINCE = 5  # when it came into its state
    STATE = 6  # a Cell
    WAITED = 7
    CAME = 8
    BEGAN = 9
    PATIENCE = 10
    ATTEMPT = 11
    ROBOT = 12
    HEAD = 13  # it goes before all that wait
    THERE = 14
    NEXT = 15  # free slot


class Robot(IntEnum):
    FLEET = 0
    JOB = 1
    UP = 2
    SINCE = 3  # when it began to work, or broke
    WEAR = 4  # how long it works until it breaks
    TIMES = 5  # that it broke
    ENDS = 6  # its work


class Fleet(IntEnum):
    SPEED = 0
    FAILS = 1
    COUNTS = 2
    AT_BREAK = 3


class Klass(IntEnum):
    PRIORITY = 0
    ATTEMPTS = 1
    ANEW = 2
    GROUP = 3
    FITS = 4  # the first of the fleets


class Row(IntEnum):
    """Of the heaps; then idle robots of each fleet, busy ones of each fleet (the least urgent job first),
    waiting jobs of each group, and those of each group that go before them."""

    CALENDAR = 0
    REPAIRS = 1
    IDLE = 2


@inlined
def counts_of(fleets, fleet):
    return np.int64(fleets[fleet, Fleet.COUNTS])


@inlined
def busy_row(box, fleet):
    return Row.IDLE + box[Box.FLEETS] + fleet


@inlined
def waiting_row(box, group):
    return Row.IDLE + 2 * box[Box.FLEETS] + group


@inlined
def head_row(box, group):
    return Row.IDLE + 2 * box[Box.FLEETS] + box[Box.GROUPS] + group


@inlined
def row_of(box, classes, jobs, slot):
    """Where a job waits."""
    group = classes[jobs[slot, Job.KLASS], Klass.GROUP]
    return head_row(box, group) if jobs[slot, Job.HEAD] else waiting_row(box, group)


@inlined
def job_item(box, slot):
    return 2 * box[Box.ROBOTS] + slot


@inlined
def later(box, number):
    """The second key of what the fleet does by itself to a job: after robots, before arrivals."""
    return 2 * box[Box.ROBOTS] + number


@inlined
def speedy_ns(work_ns, speed):
    return work_ns if speed == 1.0 else np.int64(np.rint(work_ns / NANO / speed * NANO))


@inlined
def order_of(box, classes, jobs, slot):
    """The first key of a waiting job."""
    due = jobs[slot, Job.DUE]
    priority = classes[jobs[slot, Job.KLASS], Klass.PRIORITY]
    discipline = box[Box.DISCIPLINE]
    if discipline == Discipline.PRODUCTION:
        return due + priority * box[Box.AGING]
    if discipline == Discipline.LIFO:
        return -due
    if discipline == Discipline.RANDOM:
        return 0
    if discipline == Discipline.FIFO:
        return due
    return (priority << LEVEL_BITS) + due


@inlined
def tie_of(box, jobs, slot):
    """The second key."""
    number = jobs[slot, Job.NUMBER]
    if box[Box.DISCIPLINE] == Discipline.RANDOM:
        return 0
    return -number if box[Box.DISCIPLINE] == Discipline.LIFO else number


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
        if now_ns > ends_ns:
            return Stop.END
        if arrival_ns < event_ns:
            if box[Box.FREE] == NOBODY:
                return Stop.ROOM
            slot = box[Box.FREE]
            arrive(
                box, heaps, places, jobs, robots, fleets, classes, key, rows, points, joins, clock, cells,
                times, batches, work, slot, klass[place], work_ns[place], patience_ns[place], now_ns, told,
            )  # fmt: skip
            continue
        which, turn = item(calendar, 1), second_key(calendar)
        remove(calendar, places[0], which)
        if turn >= ARRIVING:
            slot = which - 2 * box[Box.ROBOTS]
            arrive(
                box, heaps, places, jobs, robots, fleets, classes, key, rows, points, joins, clock, cells,
                times, batches, work, slot, klass[place], work_ns[place], patience_ns[place], now_ns, told,
            )  # fmt: skip
        elif which >= 2 * box[Box.ROBOTS]:
            slot = which - 2 * box[Box.ROBOTS]
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
        if len(told):
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
    if len(told):
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
def change(jobs, slot, state, clock, cells, now_ns):
    since_ns, before = jobs[slot, Job.SINCE], jobs[slot, Job.STATE]
    note_span(clock, cells, jobs[slot, Job.KLASS], before, since_ns, now_ns)
    if before == Cell.WAITING:
        jobs[slot, Job.WAITED] += now_ns - since_ns
    jobs[slot, Job.SINCE], jobs[slot, Job.STATE] = now_ns, state


# -- jobs and robots find each other


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
    ends_ns = now_ns + speedy_ns(jobs[slot, Job.LEFT], fleets[fleet, Fleet.SPEED])
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


# -- robots break, and are mended


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
