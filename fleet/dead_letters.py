"""Failed jobs that will not be tried again by themselves: which there are, and trying them again after all.

One that was tried again, by a redrive or by hand, has `retried_by` and is a dead letter no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from fleet.events import encode
from fleet.job import Job
from fleet.job_record import JobRecord
from fleet.messages import Keyed

LOOKED_AT = 5_000


class DeadLetterFilter(msgspec.Struct, frozen=True):
    """None admits all. `error` is found anywhere in the error, as it is written; the rest is compared whole.
    `robot_id` is the robot that had the job last, `job_ids` names the jobs themselves."""

    name: str | None = None
    environment: str | None = None
    robot_id: str | None = None
    error: str | None = None
    job_ids: list[str] | None = None

    def admits(self, job: Job) -> bool:
        whole = ((self.name, job.name), (self.environment, job.environment), (self.robot_id, job.robot_id))
        if any(asked not in (None, found) for asked, found in whole):
            return False
        if self.job_ids is not None and job.job_id not in self.job_ids:
            return False
        return self.error is None or self.error in (job.error or "")


class DeadLetters(msgspec.Struct, frozen=True):
    """Some of them, in the order in which they were looked at. `place` is where to go on, 0 at the end;
    `remaining` counts those beyond it, whether a filter admits them or not."""

    records: list[JobRecord]
    place: int = 0
    remaining: int = 0


def look_through(
    records: Iterable[JobRecord], wanted: DeadLetterFilter, limit: int, max_bytes: int
) -> tuple[list[JobRecord], int]:
    """Up to `limit` of them, with payloads of `max_bytes` together, that `wanted` admits, and the place after
    the last that was looked at; 0 if that was the last of all. Looks at `LOOKED_AT` at most."""
    found: list[JobRecord] = []
    place = looked_at = size = 0
    for record in records:
        if len(found) == limit or size >= max_bytes or looked_at == LOOKED_AT:
            return found, place
        looked_at, place = looked_at + 1, record.seq
        if wanted.admits(record.job):
            found.append(record)
            size += len(encode(record.job.payload))
    return found, 0


def among(records: Iterable[JobRecord], command: Redrive, max_bytes: int) -> DeadLetters:
    """Of jobs that are known by their ids."""
    dead = [r for r in records if is_dead_letter(r.job) and r.seq > command.place]
    dead.sort(key=lambda record: record.seq)
    found, place = look_through(dead, command.wanted, command.limit, max_bytes)
    remaining = sum(record.seq > place for record in dead) if place else 0
    return DeadLetters(found, place, remaining)


class Redrive(Keyed, frozen=True):
    """Each of up to `limit` dead letters becomes a new job, once: the oldest first, from `place` on (0: from
    the oldest), as far as the queue has room. `call` tells this command from another of the same request."""

    wanted: DeadLetterFilter
    place: int = 0
    limit: int = 1_000
    call: str = ""


class Redriven(msgspec.Struct, frozen=True):
    """`place`: where the next Redrive goes on, 0 at the end; `call`: that of the command that was carried
    out."""

    redriven: int
    remaining: int
    place: int
    call: str = ""


def is_dead_letter(job: Job) -> bool:
    return job.dead_letter and job.retried_by is None


def redriven_id(request_id: str, job_id: str) -> str:
    """Of the new job: the same for the same request, so that one that is repeated makes no other."""
    return f"job-{hashlib.sha256(f'{request_id} {job_id}'.encode()).hexdigest()[:20]}"
