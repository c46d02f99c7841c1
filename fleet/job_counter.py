"""How many jobs there are of each status, how many ended today, how long they waited."""

from __future__ import annotations

from fleet.job import JobStatus
from fleet.limits import Limits
from fleet.messages import JobCounts
from fleet.wait_window import WaitWindow
from fleet.wall_time import day_of


class JobCounter:
    """Of the jobs in memory; today's are all. A day ends at midnight UTC, and does not come back when the
    wall clock is set back."""

    def __init__(self, limits: Limits) -> None:
        self._of = dict.fromkeys(JobStatus, 0)
        self._today = {JobStatus.COMPLETED: 0, JobStatus.FAILED: 0}
        self._day = 0
        self.live_bytes = 0  # payloads of the jobs that are not finished
        self._waits = WaitWindow(limits.wait_window_s)

    def restore(self, completed_today: int, failed_today: int, wall_ns: int) -> None:
        self.roll_day(wall_ns)
        self._today = {JobStatus.COMPLETED: completed_today, JobStatus.FAILED: failed_today}

    @property
    def pending(self) -> int:
        return self._of[JobStatus.PENDING]

    def add(self, status: JobStatus) -> None:
        self._of[status] += 1

    def remove(self, status: JobStatus) -> None:
        self._of[status] -= 1

    def end(self, status: JobStatus, wall_ns: int) -> None:
        """One more ended today."""
        self.roll_day(wall_ns)
        if status in self._today:
            self._today[status] += 1

    def waited(self, wait_ns: int, now_ns: int) -> None:
        """From when it was due to its grant."""
        self._waits.add(max(0, wait_ns), now_ns)

    def roll_day(self, wall_ns: int) -> None:
        if day_of(wall_ns) > self._day:
            self._day = day_of(wall_ns)
            self._today = dict.fromkeys(self._today, 0)

    def counts(self, depth: int, stuck: int, now_ns: int, wall_ns: int) -> JobCounts:
        self.roll_day(wall_ns)
        return JobCounts(
            self.pending,
            self._of[JobStatus.CLAIMED] + self._of[JobStatus.RUNNING],
            self._today[JobStatus.COMPLETED],
            self._today[JobStatus.FAILED],
            depth,
            self._waits.mean_ms(now_ns),
            stuck=stuck,
        )
