"""Failed jobs that will not be tried again by themselves: which there are, and trying them again after all.

One that was tried again, by a redrive or by hand, has `retried_by` and is a dead letter no more.
"""

from __future__ import annotations

import hashlib

import msgspec

from fleet.job import Job
from fleet.job_record import JobRecord
from fleet.messages import Keyed


class DeadLetterFilter(msgspec.Struct, frozen=True):
    """None admits all. `error` is found anywhere in the error, as it is written; the rest is compared whole.
    `robot_id` is the robot that had the job last."""

    name: str | None = None
    environment: str | None = None
    robot_id: str | None = None
    error: str | None = None

    def admits(self, job: Job) -> bool:
        whole = ((self.name, job.name), (self.environment, job.environment), (self.robot_id, job.robot_id))
        if any(asked not in (None, found) for asked, found in whole):
            return False
        return self.error is None or self.error in (job.error or "")


class DeadLetters(msgspec.Struct, frozen=True):
    """Some of them, in the order in which they were looked at. `place` is where to go on, 0 at the end;
    `remaining` counts those beyond it, whether a filter admits them or not."""

    records: list[JobRecord]
    place: int = 0
    remaining: int = 0


class Redrive(Keyed, frozen=True):
    """Each of up to `limit` dead letters becomes a new job, once: the oldest first, from `place` on (0: from
    the oldest); with `job_ids` those of them that are dead letters. All or nothing."""

    wanted: DeadLetterFilter
    job_ids: list[str] | None = None
    place: int = 0
    limit: int = 1_000


class Redriven(msgspec.Struct, frozen=True):
    """`place`: where the next Redrive goes on, 0 at the end."""

    redriven: int
    remaining: int
    place: int


def is_dead_letter(job: Job) -> bool:
    return job.dead_letter and job.retried_by is None


def redriven_id(request_id: str, job_id: str) -> str:
    """Of the new job: the same for the same request, so that one that is repeated makes no other."""
    return f"job-{hashlib.sha256(f'{request_id} {job_id}'.encode()).hexdigest()[:20]}"
