"""Which finished jobs are still in memory."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from fleet.limits import Limits


class FinishedJobs:
    """In the order in which they ended or were asked for again. Bounds: `max_finished` and
    `max_finished_bytes`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._jobs: OrderedDict[str, tuple[int, int]] = OrderedDict()  # id -> bytes, number
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job_id: str, size_bytes: int, number: int) -> None:
        """`number` is that of the event after the last of this job."""
        before, _ = self._jobs.pop(job_id, (0, 0))
        self._jobs[job_id] = (size_bytes, number)
        self._bytes += size_bytes - before

    def newest(self, count: int) -> list[str]:
        return list(islice(reversed(self._jobs), count))

    def take_excess(self, committed: int) -> list[str]:
        """The oldest beyond the bounds, up to the first whose events from number `committed` on are not in
        the journal yet."""
        taken = []
        while len(self._jobs) > self._limits.max_finished or self._bytes > self._limits.max_finished_bytes:
            job_id, (size_bytes, number) = next(iter(self._jobs.items()))
            if number > committed:
                break
            del self._jobs[job_id]
            self._bytes -= size_bytes
            taken.append(job_id)
        return taken
