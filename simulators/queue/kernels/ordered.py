"""Whoever comes first in some order is served next, by robots of which each can do every job, and nobody is
interrupted: between two arrivals, those that are free take who waits."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from simulators.jit import compiled, inlined
from simulators.keyed import Ints
from simulators.queue.kernels.fifo import begin
from simulators.queue.kernels.tally import Cell, Clock, Fate, note_arrival, note_span


class Line(IntEnum):
    """Of who waits: two keys, of which the smallest is next, and the job."""

    FIRST = 0
    SECOND = 1
    NUMBER = 2
    CAME = 3
    KLASS = 4
    WORK = 5


def new_line(room: int) -> Ints:
    """A binary heap, from place 1 on; the first cell says how many wait."""
    return np.zeros((room + 1, len(Line)), np.int64)


def with_room(line: Ints, more: int) -> Ints:
    """For so many more than wait now; the same, if it has."""
    room = int(line[0, 0]) + more
    if room < len(line):
        return line
    wider = new_line(2 * room)
    wider[: len(line)] = line
    return wider


@compiled
def serve(
    clock, cells, times, batches, work, line, free_ns, robots, speeds, slope, offsets,
    first, came_ns, klass, work_ns, told,
):  # fmt: skip
    """As `fifo.serve`. The order is by `slope` times the arrival, plus the `offsets` of its class; then by
    number, backwards if the slope is. There must be room in `line` for all of these jobs."""
    for place in range(len(came_ns)):
        at_ns, number, which = came_ns[place], first + place, klass[place]
        note_arrival(clock, cells, which, at_ns, Fate.THERE)
        while line[0, 0] > 0 and free_ns[0] <= at_ns:
            begin_next(clock, cells, times, batches, work, line, free_ns, robots, speeds, told)
        if free_ns[0] <= at_ns:
            begin(
                clock, cells, times, batches, work, free_ns, robots, speeds,
                number, at_ns, which, work_ns[place], at_ns, told,
            )  # fmt: skip
        else:
            push(line, slope * at_ns + offsets[which], slope * number, number, at_ns, which, work_ns[place])


@compiled
def finish(clock, cells, times, batches, work, line, free_ns, robots, speeds, told):
    """When nobody comes any more."""
    while line[0, 0] > 0 and free_ns[0] <= clock[Clock.END]:
        begin_next(clock, cells, times, batches, work, line, free_ns, robots, speeds, told)
    for place in range(1, line[0, 0] + 1):
        came_ns = line[place, Line.CAME]
        note_span(clock, cells, line[place, Line.KLASS], Cell.WAITING, came_ns, clock[Clock.END])


@inlined
def begin_next(clock, cells, times, batches, work, line, free_ns, robots, speeds, told):
    number, came_ns = line[1, Line.NUMBER], line[1, Line.CAME]
    klass, work_ns = line[1, Line.KLASS], line[1, Line.WORK]
    pop(line)
    begin(
        clock, cells, times, batches, work, free_ns, robots, speeds,
        number, came_ns, klass, work_ns, free_ns[0], told,
    )  # fmt: skip


@inlined
def sooner(line, place, first, second):
    there = line[place, Line.FIRST]
    return there < first or (there == first and line[place, Line.SECOND] < second)


@inlined
def copy(line, source, target):
    for column in range(6):
        line[target, column] = line[source, column]


@inlined
def push(line, first, second, number, came_ns, klass, work_ns):
    line[0, 0] += 1
    place = line[0, 0]
    while place > 1 and not sooner(line, place // 2, first, second):
        copy(line, place // 2, place)
        place = place // 2
    line[place, Line.FIRST], line[place, Line.SECOND] = first, second
    line[place, Line.NUMBER], line[place, Line.CAME] = number, came_ns
    line[place, Line.KLASS], line[place, Line.WORK] = klass, work_ns


@inlined
def pop(line):
    """The last goes down from the top."""
    last, place = line[0, 0], 1
    line[0, 0] -= 1
    first, second = line[last, Line.FIRST], line[last, Line.SECOND]
    while 2 * place < last:
        child = 2 * place
        if child + 1 < last and sooner(line, child + 1, line[child, Line.FIRST], line[child, Line.SECOND]):
            child += 1
        if not sooner(line, child, first, second):
            break
        copy(line, child, place)
        place = child
    copy(line, last, place)
