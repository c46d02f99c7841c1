"""A virtual clock: what is to happen, in the order of its time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from enum import IntEnum

Call = Callable[[], object]


class Turn(IntEnum):
    """Of things that happen at one time: robots first, so that a job that ends leaves its robot to one that
    arrives; then what the fleet does by itself; then what arrives."""

    ROBOT = 0
    FLEET = 1
    ARRIVAL = 2


class Engine:
    """Time is in whole nanoseconds from 0. What happens at one time goes by its turn, then by its number (a
    robot's, a job's), then by the order in which it was asked for."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._heap: list[tuple[int, Turn, int, int, Call]] = []
        self._asked = itertools.count()

    def at(self, at_ns: int, turn: Turn, number: int, call: Call) -> None:
        """Not before now: what should have happened earlier happens next."""
        heapq.heappush(self._heap, (max(at_ns, self.now_ns), turn, number, next(self._asked), call))

    def run(self, until_ns: int | None = None) -> None:
        """What is due by `until_ns`, or all there is."""
        while self._heap and (until_ns is None or self._heap[0][0] <= until_ns):
            self.now_ns, *_, call = heapq.heappop(self._heap)
            call()
        if until_ns is not None:
            self.now_ns = max(self.now_ns, until_ns)
