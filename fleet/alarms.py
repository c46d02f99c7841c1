"""One alarm per key, cheap to move: for deadlines that are put off far more often than they are reached."""

from __future__ import annotations

import heapq


class Alarms:
    """Times are integers of one clock. At most two heap entries per key that has an alarm, and 1,024."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._at)

    def set_by(self, key: str, at: int) -> None:
        """Rings at `at`, or earlier if it was set so before: who hears it looks at the true deadline and
        sets it again. To put a deadline off therefore costs nothing."""
        before = self._at.get(key)
        if before is not None and before <= at:
            return
        self._at[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 1_024 + 2 * len(self._at):
            self._sweep()

    def next_at(self) -> int | None:
        """When the earliest rings."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def stop(self, key: str) -> None:
        self._at.pop(key, None)

    def take_ringing(self, now: int) -> list[str]:
        """The keys whose alarm has come, earliest first; these have none from now on."""
        rung = []
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                rung.append(key)
        return rung

    def _sweep(self) -> None:
        """Entries of alarms that were stopped or brought forward go in bulk."""
        self._heap = [(at, key) for key, at in self._at.items()]
        heapq.heapify(self._heap)
