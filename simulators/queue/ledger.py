"""What becomes of each job, told as it happens, and counted.

Both engines that go step by step in Python tell it; the kernels count by themselves, in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulators.keyed import Ints
from simulators.queue.kernels import tally as counted
from simulators.queue.kernels.layout import NEVER
from simulators.queue.kernels.tally import Cell, Clock, Fate, Tally


@dataclass
class _There:
    klass: int
    came_ns: int
    since_ns: int
    state: Cell = Cell.WAITING
    waited_ns: int = 0
    began_ns: int = NEVER


class Ledger:
    """Jobs are numbered from 1, robots from 0; times are in nanoseconds. Remembers those who are there. Into
    `told` [number - 1, 4] goes when each began first and left, its fate and how long it waited; unless it has
    no room."""

    def __init__(self, tally: Tally, told: Ints) -> None:
        self._tally = tally
        self._told = told
        self._jobs: dict[int, _There] = {}
        self._works: dict[int, int] = {}  # robot: since when
        self._down: dict[int, int] = {}

    @property
    def there(self) -> int:
        return len(self._jobs)

    def came(self, number: int, klass: int, now_ns: int, fate: Fate = Fate.THERE) -> None:
        counted.note_arrival(self._tally.clock, self._tally.cells, klass, now_ns, fate)
        if fate is Fate.THERE:
            self._jobs[number] = _There(klass, now_ns, now_ns)
        else:
            self._tell(number, 0, now_ns, fate, 0)

    def turns(self, number: int, state: Cell, now_ns: int) -> None:
        """It waits, is worked on or is held from now on."""
        job = self._jobs[number]
        counted.note_span(self._tally.clock, self._tally.cells, job.klass, job.state, job.since_ns, now_ns)
        if job.state is Cell.WAITING:
            job.waited_ns += now_ns - job.since_ns
        if state is Cell.WORKING:
            job.began_ns = min(job.began_ns, now_ns)
        job.state, job.since_ns = state, now_ns

    def leaves(self, number: int, now_ns: int, fate: Fate) -> None:
        self.turns(number, Cell.HELD, now_ns)
        job, tally = self._jobs.pop(number), self._tally
        counted.note_end(
            tally.clock, tally.cells, tally.times, tally.batches,
            job.klass, number, job.came_ns, now_ns, job.waited_ns, fate,
        )  # fmt: skip
        self._tell(number, job.began_ns, now_ns, fate, job.waited_ns)

    def robot_works(self, robot: int, now_ns: int) -> None:
        self._works[robot] = now_ns

    def robot_stops(self, robot: int, now_ns: int, done: bool) -> None:
        """`done`: with what it was to do."""
        clock, robots = self._tally.clock, self._tally.robots
        counted.note_work(clock, robots, robot, self._works.pop(robot), now_ns)
        if done:
            counted.note_done(clock, robots, robot, now_ns)

    def robot_breaks(self, robot: int, now_ns: int) -> None:
        self._down[robot] = now_ns

    def robot_is_mended(self, robot: int, now_ns: int) -> None:
        tally, since_ns = self._tally, self._down.pop(robot)
        counted.note_span(tally.clock, tally.cells, 0, Cell.DOWN, since_ns, now_ns)

    def close(self) -> None:
        """What is still under way counts up to the end."""
        end_ns = int(self._tally.clock[Clock.END])
        for number in list(self._jobs):
            self.turns(number, Cell.HELD, end_ns)
        for robot in list(self._works):
            self.robot_stops(robot, end_ns, done=False)
        for robot in list(self._down):
            self.robot_is_mended(robot, end_ns)

    def _tell(self, number: int, began_ns: int, left_ns: int, fate: Fate, waited_ns: int) -> None:
        if number <= len(self._told):
            self._told[number - 1] = (began_ns, left_ns, fate, waited_ns)
