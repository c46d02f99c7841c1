"""The largest fleet that meets an objective: doubled until it does not, then halved in between."""

from __future__ import annotations

from math import sqrt


class LimitSearch:
    """Ask `next_robots`, try it, tell whether it was good. A fleet that is larger than one that failed is
    taken to fail. Ends when the gap is within `precision` (a share), or nothing is left to try."""

    def __init__(self, start: int, most: int, precision: float, least: int = 1) -> None:
        self.good: int | None = None  # the largest that met it
        self.bad: int | None = None  # the smallest that did not
        self._start = max(least, min(start, most))
        self._most = most
        self._least = least
        self._precision = precision

    @property
    def next_robots(self) -> int | None:
        """None when there is nothing more to learn."""
        if self.good is None and self.bad is None:
            return self._start
        if self.bad is None:
            assert self.good is not None
            return min(2 * self.good, self._most) if self.good < self._most else None
        if self.good is None:
            return max(self._least, self.bad // 2) if self.bad > self._least else None
        if self.bad - self.good <= max(1, self._precision * self.good):
            return None
        between = round(sqrt(self.good * self.bad))
        return min(max(between, self.good + 1), self.bad - 1)

    def tell(self, robots: int, met: bool) -> None:
        if met:
            self.good = max(robots, self.good or 0)
        else:
            self.bad = min(robots, self.bad or robots)
