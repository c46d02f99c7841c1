"""First come first served by robots of which each can do every job: by the recursion of Kiefer and Wolfowitz
(1955), who is free first takes the next job."""

from __future__ import annotations

from simulators.jit import compiled, inlined
from simulators.queue.kernels.layout import NEVER, served_ns
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

FEW = 100  # robots whose order is kept by moving them up; beyond, in a heap


@compiled
def serve(clock, cells, times, batches, work, free_ns, robots, speeds, first, came_ns, klass, work_ns, told):
    """`free_ns` is when each of `robots` is free, in that order; `first` is the number of the first of these
    jobs. Into `told` [number - 1, 4] goes when each began and left, its fate and how long it waited, unless
    it is empty."""
    for place in range(len(came_ns)):
        at_ns, number, which = came_ns[place], first + place, klass[place]
        note_arrival(clock, cells, which, at_ns, Fate.THERE)
        begin(
            clock, cells, times, batches, work, free_ns, robots, speeds,
            number, at_ns, which, work_ns[place], max(at_ns, free_ns[0]), told,
        )  # fmt: skip


@inlined
def begin(
    clock, cells, times, batches, work, free_ns, robots, speeds,
    number, came_ns, klass, work_ns, begins_ns, told,
):  # fmt: skip
    """Who is free first takes it, and all that becomes of it is known."""
    robot = robots[0]
    ends_ns = min(begins_ns + served_ns(work_ns, speeds[robot]), NEVER)
    if len(free_ns) <= FEW:
        move_up(free_ns, robots, ends_ns, robot)
    else:
        sift_down(free_ns, robots, ends_ns, robot)
    note_span(clock, cells, klass, Cell.WAITING, came_ns, begins_ns)
    note_span(clock, cells, klass, Cell.WORKING, begins_ns, ends_ns)
    note_work(clock, work, robot, begins_ns, ends_ns)
    if ends_ns <= clock[Clock.END]:
        waited_ns = begins_ns - came_ns
        note_end(clock, cells, times, batches, klass, number, came_ns, ends_ns, waited_ns, Fate.SERVED)
        note_done(clock, work, robot, ends_ns)
        if number <= len(told):
            told[number - 1, 0], told[number - 1, 1] = begins_ns, ends_ns
            told[number - 1, 2], told[number - 1, 3] = Fate.SERVED, waited_ns


@inlined
def move_up(times, robots, time, robot):
    """The first is taken out; `robot` goes to its place."""
    place, last = 0, len(times) - 1
    while place < last and (
        times[place + 1] < time or (times[place + 1] == time and robots[place + 1] < robot)
    ):
        times[place], robots[place] = times[place + 1], robots[place + 1]
        place += 1
    times[place], robots[place] = time, robot


@inlined
def sift_down(times, robots, time, robot):
    """The same in a heap."""
    place, count = 0, len(times)
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        other = child + 1
        if other < count and (
            times[other] < times[child] or (times[other] == times[child] and robots[other] < robots[child])
        ):
            child = other
        if times[child] > time or (times[child] == time and robots[child] > robot):
            break
        times[place], robots[place] = times[child], robots[child]
        place = child
    times[place], robots[place] = time, robot
