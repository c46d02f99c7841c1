"""Mean waiting time over a sliding window, in one bucket a second."""

from __future__ import annotations

from collections import deque

from fleet.limits import SECOND


class WaitWindow:
    def __init__(self, window_s: int) -> None:
        self._window_s = window_s
        self._buckets: deque[tuple[int, int, int]] = deque()  # second, sum of waits in ns, count

    def add(self, wait_ns: int, now_ns: int) -> None:
        second = now_ns // SECOND
        total, count = 0, 0
        if self._buckets and self._buckets[-1][0] == second:
            _, total, count = self._buckets.pop()
        self._buckets.append((second, total + wait_ns, count + 1))
        self._forget(second)

    def mean_ms(self, now_ns: int) -> int:
        """0 if nothing was added within the window."""
        self._forget(now_ns // SECOND)
        count = sum(bucket[2] for bucket in self._buckets)
        return sum(bucket[1] for bucket in self._buckets) // count // 1_000_000 if count else 0

    def _forget(self, second: int) -> None:
        while self._buckets and self._buckets[0][0] <= second - self._window_s:
            self._buckets.popleft()
