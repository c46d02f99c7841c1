"""How long until a job store that was killed is ready again: 1,000,000 finished jobs and 100,000 live ones.

    python benchmarks/recovery.py [--stores sqlite,postgresql] [--finished 1000000] [--live 100000]

A store is filled with jobs by the statements of every commit: four events a finished job, and of the live
ones half are held by robots. The process that wrote is killed with what the log holds then. Ready is a job
store that has opened its store, checked it, read what is to be done, given every lease anew, and answered a
first question; the process itself takes a moment more to start. The file cache is warm, as it is after the
crash of a process. Three times, each in a process of its own; the middle one is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import msgspec
from jobs_store import Quiet
from postgres import postgres_server
from processes import RoundFailed, child, own_kib, told

from actors.job_store import JobStoreRoom
from actors.stores import job_tables
from fleet.job import Job, JobEvent, JobStatus
from fleet.job_record import Fact, JobRecord
from fleet.limits import Limits
from fleet.wall_time import rfc3339

SQLITE, POSTGRESQL = "sqlite", "postgresql"
WANTED_S = 10.0
TOGETHER = 1_000  # jobs in a transaction
PATIENCE_S = 3_600.0
LIFE = (
    (JobEvent.SUBMIT, JobStatus.PENDING),
    (JobEvent.CLAIM, JobStatus.CLAIMED),
    (JobEvent.START, JobStatus.RUNNING),
    (JobEvent.COMPLETE, JobStatus.COMPLETED),
)


class Ready(msgspec.Struct, frozen=True):
    seconds: float
    live: int
    mib: float


# -- filling


class Filler:
    """Writes the lives of jobs, as the job store would have told them."""

    def __init__(self, store: str) -> None:
        self._tables = job_tables(store, "fleetcast", Limits())
        self._tables.open(time.time_ns())
        self._number = 0
        self._seq = 0
        self._at = rfc3339(time.time_ns())

    def fill(self, jobs: int, steps: int) -> None:
        """`steps` of the life of each: 4 is all of it."""
        for start in range(0, jobs, TOGETHER):
            count = min(TOGETHER, jobs - start)
            self._tables.write([fact for _ in range(count) for fact in self._life(steps)])
            if not start % 50_000:
                self._tables.compact()

    def _life(self, steps: int) -> Iterator[Fact]:
        self._seq += 1
        name = f"job-{self._seq:020}"
        payload = {"part": self._seq, "note": "as any other"}
        for event, status in LIFE[:steps]:
            job = Job(
                job_id=name,
                name="weld",
                payload=payload,
                status=status,
                created_at=self._at,
                attempt=int(status is not JobStatus.PENDING),
                claimed_at=self._at if status is not JobStatus.PENDING else None,
                finished_at=self._at if status is JobStatus.COMPLETED else None,
                robot_id=f"robot-{self._seq % 1_000}" if status is not JobStatus.PENDING else None,
            )
            yield Fact(self._number, 0, event, self._at, JobRecord(job, self._seq, 0, token=job.attempt))
            self._number += 1


def fill(store: str, finished: int, live: int, pipe: Connection) -> None:
    """The process that is killed: nothing is closed."""
    filler = Filler(store)
    filler.fill(finished, steps=4)
    filler.fill(live - live // 2, steps=1)
    filler.fill(live // 2, steps=2)
    pipe.send(True)
    pipe.poll(None)
    os._exit(1)


# -- coming back


def come_back(store: str, pipe: Connection) -> None:
    pipe.send(asyncio.run(_ready(store)))


async def _ready(store: str) -> Ready:
    start_s = time.perf_counter()
    room = JobStoreRoom(Limits(), Quiet(), Quiet(), store)
    counts = await room.counts()
    ready = Ready(
        time.perf_counter() - start_s, counts.pending + counts.running, own_kib(os.getpid()) / 1_024
    )
    await room.close()
    return ready


@contextmanager
def filled(kind: str, finished: int, live: int) -> Iterator[str]:
    with postgres_server() as postgres, tempfile.TemporaryDirectory() as folder:
        store = postgres.new_database(socket=True) if kind == POSTGRESQL else f"sqlite:{folder}"
        with child(fill, store, finished, live) as pipe:
            told(pipe, PATIENCE_S)
        yield store


def measure(kind: str, finished: int, live: int, rounds: int) -> Ready:
    """The middle one; each is a process of its own, the first after the kill."""
    found = []
    with filled(kind, finished, live) as store:
        for _ in range(rounds):
            with child(come_back, store) as pipe:
                ready: Ready = told(pipe, PATIENCE_S)
            print(f"{kind}: {ready}", file=sys.stderr)
            if ready.live != live:
                raise RoundFailed(f"{ready.live:,} live jobs came back of {live:,}")
            found.append(ready)
    return sorted(found, key=lambda ready: ready.seconds)[len(found) // 2]


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--stores", default=f"{SQLITE},{POSTGRESQL}")
    options.add_argument("--finished", type=int, default=1_000_000)
    options.add_argument("--live", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    print(f"{asked.finished:,} finished jobs, {asked.live:,} live; wanted: ready in {WANTED_S:g} s")
    print("  store        ready in s   memory MiB")
    slowest = 0.0
    for kind in asked.stores.split(","):
        ready = measure(kind, asked.finished, asked.live, asked.rounds)
        slowest = max(slowest, ready.seconds)
        print(f"  {kind:11}  {ready.seconds:10.1f}   {ready.mib:10.0f}", flush=True)
    print("PASS" if slowest < WANTED_S else "short")


if __name__ == "__main__":
    main()
