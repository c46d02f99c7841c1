"""A job store that writes what it decides, by a clock of the test's; and the kinds of store it may have."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from actors import job_tables, stores
from actors.job_tables import JobTables
from actors.memory_tables import MemoryJobTables
from actors.sqlite import SqliteDatabase
from actors.writer import Opening
from fleet.job import Job, JobEvent
from fleet.job_record import Announcement, Fact, JobsAtRest
from fleet.job_store import JobStore
from fleet.limits import MS, SECOND, Limits
from fleet.messages import Announce, Answer, Claim, Granted, JobSpec, Report, Submit

LIMITS = Limits(retention_s=60, idempotency_s=60, feed_events=1_000, max_page_bytes=2_000, max_remembered=50)
FLEET = "the fleet"
WALL_NS = 1_736_937_000_000_000_000  # 2025-01-15T10:30Z
Tables = JobTables | MemoryJobTables


def sqlite_file(folder: Path) -> Path:
    return folder / "jobs.sqlite3"


def sqlite_tables(folder: Path, limits: Limits = LIMITS, fleet: str = FLEET) -> JobTables:
    return JobTables(SqliteDatabase(sqlite_file(folder)), fleet, limits)


def tables_of(store: str, limits: Limits = LIMITS, fleet: str = FLEET) -> Any:
    return stores.job_tables(store, fleet, limits)


class Kept:
    """`do` decides and writes. `close` and `open` as often as wanted."""

    def __init__(self, make: Callable[[], Tables], limits: Limits = LIMITS) -> None:
        self._make = make
        self.limits = limits
        self.now_ns = SECOND
        self.tables: Any = None
        self.written: list[Fact | Announcement] = []
        self.open()
        self._names = itertools.count(self.rest.seq)

    @property
    def wall_ns(self) -> int:
        return WALL_NS + self.now_ns

    @property
    def clock(self) -> tuple[int, int]:
        return self.now_ns, self.wall_ns

    def open(self) -> None:
        self.tables = self._make()
        self.tables.now_ns = lambda: self.now_ns
        self.opening: Opening
        self.rest: JobsAtRest
        self.opening, self.rest = self.tables.open(self.wall_ns)
        self.core = JobStore(self.limits, Random(1))
        self.core.restore(self.rest, *self.clock)

    def close(self) -> None:
        self.tables.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    def passes(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1_000) * MS

    def write(self) -> list[Fact | Announcement]:
        facts = self.core.take_facts()
        self.tables.write(facts)
        self.written += facts
        return facts

    # -- commands

    def submit(self, count: int = 1, **spec: Any) -> list[str]:
        names = [f"j{next(self._names)}" for _ in range(count)]
        self.core.submit(Submit(names, [JobSpec(name="weld", **spec)] * count), *self.clock)
        self.write()
        return names

    def claim(self, robot: str = "r", limit: int = 1, request_id: str = "") -> list[Granted]:
        request_id = request_id or f"q{next(self._names)}"
        answer = self.core.claim(Claim("door", robot, request_id, limit, 0, [], "e", 100), *self.clock)
        self.write()
        assert isinstance(answer, Answer)
        return answer.grants

    def report(self, grant: Granted, event: JobEvent, robot: str = "r", **more: Any) -> Job:
        job = self.core.report(Report(event, grant.job.job_id, robot, grant.token, **more), *self.clock)
        self.write()
        return job

    def finish(self, count: int = 1, **more: Any) -> list[str]:
        """As many jobs as are submitted are completed: those that have waited longest."""
        self.submit(count)
        grants = self.claim(limit=count)
        for grant in grants:
            self.report(grant, JobEvent.START)
            self.report(grant, JobEvent.COMPLETE, **more)
        return [grant.job.job_id for grant in grants]

    def cancel(self, job_id: str) -> None:
        self.core.cancel(job_id, *self.clock)
        self.write()

    def announce(self, name: str) -> None:
        self.core.announce(Announce(name, f"theirs-{name}", Job(job_id="", name="").status), self.wall_ns)
        self.write()

    # -- what is there

    def jobs(self) -> list[Job]:
        """All, newest first, by as many pages as it takes."""
        return pages(self.tables)

    def everything(self) -> Any:
        """All that may be asked of a store, to be compared."""
        jobs = self.jobs()
        histories = {job.job_id: self.tables.history(job.job_id) for job in jobs}
        records = self.tables.find([job.job_id for job in jobs])
        return jobs, histories, sorted(records, key=lambda record: record.seq)


def pages(tables: Any, wanted: Any = None, limit: int = 100) -> list[Job]:
    from fleet.job_record import JobFilter

    found, before = tables.page(wanted or JobFilter(), 0, limit)
    while before:
        more, before = tables.page(wanted or JobFilter(), before, limit)
        found += more
    return list(found)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def put_back(folder: Path, files: dict[str, bytes]) -> None:
    """The folder as it was."""
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def with_migrations(monkeypatch: Any, more: Sequence[Sequence[str]]) -> None:
    """A later fleetcast, whose schema goes on from this one's."""
    monkeypatch.setattr(job_tables, "MIGRATIONS", (*job_tables.MIGRATIONS, *more))
