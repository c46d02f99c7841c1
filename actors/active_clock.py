"""The clock by which an actor measures leases and timeouts: time in which it was there to hear."""

from __future__ import annotations

import time
from collections.abc import Callable

from fleet.limits import MS

MAX_STEP_NS = 500 * MS


class ActiveClock:
    """Nanoseconds that only grow. Reads a monotonic clock; two readings are at most `MAX_STEP_NS` apart, so
    that while the actor was stopped, swapped out or gone no lease ran down: nobody could have renewed it.
    Goes on from `start_ns`, which is where the journal says that an earlier life of the actor had come to."""

    def __init__(self, start_ns: int = 0, read: Callable[[], int] = time.monotonic_ns) -> None:
        self.now_ns = start_ns
        self._read = read
        self._seen_ns = read()

    def tick(self) -> int:
        """Must be called often, in an actor by its tick: what lies further apart is lost."""
        seen_ns = self._read()
        self.now_ns += min(seen_ns - self._seen_ns, MAX_STEP_NS)
        self._seen_ns = seen_ns
        return self.now_ns
