"""Where the event calendar keeps what it knows: a few arrays, which all its functions hand on in one order.

`box` counts and bounds [Box]; `heaps` rows as in [Row]; `places` of [calendar, other heaps]; `jobs`
[slot, Job]; `robots` [robot, Robot]; `fleets` [fleet, Fleet]; `classes` [class, Klass and then, of each
fleet, whether it can], then the same of each group of classes; `key`, `rows` and `points` of the draws, whose
distributions are the work of each class, then `up` and `repair` of each fleet, then how long users think;
then the arrays of a Tally.

Items in heaps: 2 r is what robot r is about to complete, and itself where robots wait; 2 r + 1 when it
breaks or is mended; 2 R + s is the job in slot s.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from simulators.jit import inlined
from simulators.keyed import LONGEST, NANO

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
def served_ns(work_ns, speed):
    """How long a robot of that speed needs."""
    return work_ns if speed == 1.0 else np.int64(min(np.rint(work_ns / NANO / speed * NANO), LONGEST))


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
