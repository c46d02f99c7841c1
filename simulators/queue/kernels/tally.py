"""What is counted of jobs as they go by: memory does not grow with their number.

Times are whole nanoseconds. The time of a replication is cut into segments, so that its beginning can be left
out afterwards; each figure goes to the segment in which it happened.

Kernels are handed the arrays of a Tally one by one: each array that numba takes out of a tuple is counted as
a new reference, which was measured to cost ten times what is done with it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.jit import compiled, inlined
from simulators.keyed import NANO, Floats, Ints

SEGMENTS = 100  # after the warm-up, if that is given
FINE = 6  # bits: how many parts an octave of times has
SHORTEST = 10  # times below 2^10 ns count as none
MANTISSA, BIAS = 52, 1_023  # of a float of 64 bits
BUCKETS = ((62 - SHORTEST) << FINE) + 1
BATCHES = 8_192
FIRST_BATCH = 5  # jobs: MSER-5


NOTHING: Ints = np.zeros((0, 4), np.int64)  # for who need not be told what became of each job


class Cell(IntEnum):
    """Counts of jobs; then sums in seconds, of those that left after they had been let in; then areas, jobs
    times nanoseconds. HELD are neither waiting nor worked on: their robot is broken, or they are not due
    again yet. DOWN is of robots, and with the first class."""

    CAME = 0
    BLOCKED = 1
    BALKED = 2
    LEFT = 3
    DELAYED = 4  # had to wait
    SERVED = 5
    FAILED = 6
    ABANDONED = 7
    WAIT = 8
    WAIT_SQUARED = 9
    STAY = 10
    SERVED_STAY = 11
    SERVED_STAY_SQUARED = 12
    WAITING = 13
    WORKING = 14
    HELD = 15
    DOWN = 16


class Fate(IntEnum):
    """FAILED were begun and not done; ABANDONED gave up waiting; BLOCKED and BALKED were not let in."""

    THERE = 0
    SERVED = 1
    FAILED = 2
    ABANDONED = 3
    BLOCKED = 4
    BALKED = 5


class Clock(IntEnum):
    """The end of the warm-up, the width of a segment, the end; how many jobs a batch has. Then the segment
    and the batch that were last asked for, with what belongs to them: a division costs as much as all the
    rest."""

    WARM_UP = 0
    WIDTH = 1
    END = 2
    BATCH_SIZE = 3
    SEGMENT = 4
    SEGMENT_BEGINS = 5
    SEGMENT_ENDS = 6
    BATCH = 7
    BATCH_BEGINS = 8
    BATCH_ENDS = 9


class Tally(NamedTuple):
    """`times`: how many waited so long, and how many that were served stayed so long. `batches`, by the order
    of arrival, for the search for the warm-up: the sum of the waits, how many, and when the first of them
    came. `robots`, after the warm-up: nanoseconds of work, and jobs done."""

    clock: Ints  # [Clock]
    cells: Floats  # [segment, class, Cell]
    times: NDArray[np.int32]  # [2, segment, bucket]
    batches: Floats  # [3, batch]
    robots: Floats  # [2, robot]


def new_tally(lasts_ns: int, warm_up_ns: int, classes: int, robots: int) -> Tally:
    segments = SEGMENTS + 1
    width_ns = (lasts_ns - warm_up_ns) // SEGMENTS + 1  # so that the very end is in the last one
    batches = np.zeros((3, BATCHES))
    batches[2] = np.inf
    return Tally(
        clock=np.array([warm_up_ns, width_ns, lasts_ns, FIRST_BATCH, 0, 1, 0, 0, 1, 0], dtype=np.int64),
        cells=np.zeros((segments, classes, len(Cell))),
        times=np.zeros((2, segments, BUCKETS), np.int32),
        batches=batches,
        robots=np.zeros((2, robots)),
    )


@inlined
def segment_of(clock, at_ns):
    """0 is the warm-up."""
    if clock[Clock.SEGMENT_BEGINS] <= at_ns < clock[Clock.SEGMENT_ENDS]:
        return clock[Clock.SEGMENT]
    return _other_segment(clock, at_ns)


@compiled
def _other_segment(clock, at_ns):
    since_ns, width_ns = at_ns - clock[Clock.WARM_UP], clock[Clock.WIDTH]
    if since_ns < 0:
        return 0
    segment = 1 + since_ns // width_ns
    clock[Clock.SEGMENT] = segment
    clock[Clock.SEGMENT_BEGINS] = clock[Clock.WARM_UP] + (segment - 1) * width_ns
    clock[Clock.SEGMENT_ENDS] = clock[Clock.SEGMENT_BEGINS] + width_ns
    return segment


@inlined
def bucket_of(time_ns):
    """By the exponent of the time as a float, and the first bits of its mantissa."""
    if time_ns < 1 << SHORTEST:
        return 0
    bits = np.float64(time_ns).view(np.int64)
    return (bits >> (MANTISSA - FINE)) - ((BIAS + SHORTEST) << FINE) + 1


@inlined
def note_span(clock, cells, klass, cell, from_ns, to_ns):
    """A job was in this state, or robots were DOWN; what is after the end does not count."""
    if from_ns < to_ns and from_ns < clock[Clock.END]:
        segment = segment_of(clock, from_ns)
        if (
            to_ns <= clock[Clock.SEGMENT_ENDS]
            and segment == clock[Clock.SEGMENT]
            and to_ns <= clock[Clock.END]
        ):
            cells[segment, klass, cell] += to_ns - from_ns
        else:
            _note_long_span(clock, cells, klass, cell, from_ns, min(to_ns, clock[Clock.END]))


@compiled
def _note_long_span(clock, cells, klass, cell, from_ns, to_ns):
    while from_ns < to_ns:
        segment = segment_of(clock, from_ns)
        ends_ns = min(to_ns, clock[Clock.WARM_UP] + segment * clock[Clock.WIDTH])
        cells[segment, klass, cell] += ends_ns - from_ns
        from_ns = ends_ns


@inlined
def note_arrival(clock, cells, klass, at_ns, fate):
    """`fate` is BLOCKED or BALKED for those that were not let in."""
    segment = segment_of(clock, at_ns)
    cells[segment, klass, Cell.CAME] += 1
    if fate == Fate.BLOCKED:
        cells[segment, klass, Cell.BLOCKED] += 1
    elif fate == Fate.BALKED:
        cells[segment, klass, Cell.BALKED] += 1


@inlined
def note_end(clock, cells, times, batches, klass, number, came_ns, left_ns, waited_ns, fate):
    """A job left that had been let in; not after the end."""
    segment = segment_of(clock, left_ns)
    wait_s, stay_s = waited_ns / NANO, (left_ns - came_ns) / NANO
    cells[segment, klass, Cell.LEFT] += 1
    cells[segment, klass, Cell.WAIT] += wait_s
    cells[segment, klass, Cell.WAIT_SQUARED] += wait_s * wait_s
    cells[segment, klass, Cell.STAY] += stay_s
    times[0, segment, bucket_of(waited_ns)] += 1
    if waited_ns > 0:
        cells[segment, klass, Cell.DELAYED] += 1
    if fate == Fate.SERVED:
        cells[segment, klass, Cell.SERVED] += 1
        cells[segment, klass, Cell.SERVED_STAY] += stay_s
        cells[segment, klass, Cell.SERVED_STAY_SQUARED] += stay_s * stay_s
        times[1, segment, bucket_of(left_ns - came_ns)] += 1
    elif fate == Fate.FAILED:
        cells[segment, klass, Cell.FAILED] += 1
    else:
        cells[segment, klass, Cell.ABANDONED] += 1
    if not clock[Clock.BATCH_BEGINS] <= number < clock[Clock.BATCH_ENDS]:
        _other_batch(clock, batches, number)
    batch = clock[Clock.BATCH]
    batches[0, batch] += wait_s
    batches[1, batch] += 1
    if came_ns < batches[2, batch]:
        batches[2, batch] = came_ns


@compiled
def _other_batch(clock, batches, number):
    """Jobs are numbered from 1. When there is no room for one more batch, two and two become one."""
    while (number - 1) // clock[Clock.BATCH_SIZE] >= BATCHES:
        half = BATCHES // 2
        for place in range(half):
            batches[0, place] = batches[0, 2 * place] + batches[0, 2 * place + 1]
            batches[1, place] = batches[1, 2 * place] + batches[1, 2 * place + 1]
            batches[2, place] = min(batches[2, 2 * place], batches[2, 2 * place + 1])
        batches[:2, half:] = 0.0
        batches[2, half:] = np.inf
        clock[Clock.BATCH_SIZE] *= 2
    batch = (number - 1) // clock[Clock.BATCH_SIZE]
    clock[Clock.BATCH] = batch
    clock[Clock.BATCH_BEGINS] = 1 + batch * clock[Clock.BATCH_SIZE]
    clock[Clock.BATCH_ENDS] = clock[Clock.BATCH_BEGINS] + clock[Clock.BATCH_SIZE]


@inlined
def note_work(clock, robots, robot, from_ns, to_ns):
    """What is in the warm-up or after the end does not count."""
    span_ns = min(to_ns, clock[Clock.END]) - max(from_ns, clock[Clock.WARM_UP])
    if span_ns > 0:
        robots[0, robot] += span_ns


@inlined
def note_done(clock, robots, robot, at_ns):
    if clock[Clock.WARM_UP] <= at_ns <= clock[Clock.END]:
        robots[1, robot] += 1
