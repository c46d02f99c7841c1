"""What somebody hears of the jobs who has heard nothing yet."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice

from fleet.finished_jobs import FinishedJobs
from fleet.job import Job, JobStatus
from fleet.job_entry import JobEntry


def latest_jobs(
    jobs: dict[str, JobEntry], held: Iterable[str], finished: FinishedJobs, limit: int
) -> tuple[list[tuple[Job, str]], bool]:
    """Of the `limit` a quarter for those that ended last, the rest for those that robots hold (`held`) and
    for those that wait, newest first. Each with the time of its last change, the oldest change first; and
    whether every live job is among them. `jobs` is in the order of submission."""
    ended = [jobs[job_id] for job_id in finished.newest(limit // 4)]
    waiting = (entry for entry in reversed(jobs.values()) if entry.job.status is JobStatus.PENDING)
    live = list(islice(chain((jobs[job_id] for job_id in held), waiting), limit - len(ended)))
    found = sorted(ended + live, key=lambda entry: (entry.changed_at, entry.seq))
    complete = len(live) == len(jobs) - len(finished)
    return [(entry.job, entry.changed_at) for entry in found], complete
