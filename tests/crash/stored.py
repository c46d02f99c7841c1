"""What a store holds, read beside whoever writes to it."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from checkers.history import Change, FinalJob, final_of

from fleet.events import JobStatusChanged
from fleet.job import TERMINAL, TRANSITIONS, Job, JobStatus
from fleet.job_record import HistoryEvent, JobRecord

LEGAL = {(rule.source, rule.event, rule.target) for rule in TRANSITIONS}


class Stored(msgspec.Struct):
    """`events` by number, as the live-jobs feed tells them: job and status."""

    jobs: dict[str, FinalJob] = {}
    events: dict[int, tuple[str, str]] = {}

    def add(self, found: Stored) -> None:
        """Later findings. Raises AssertionError where they contradict what was found before."""
        for job_id, job in found.jobs.items():
            known = self.jobs.get(job_id)
            assert known is None or known.status not in TERMINAL or known == job, (known, job)
        for number, event in found.events.items():
            assert self.events.get(number, event) == event, (number, self.events[number], event)
        self.jobs |= found.jobs
        self.events |= found.events


def read(store: str) -> Stored:
    """Raises AssertionError for what cannot be: a job that did not come by its events."""
    with _reading(store) as ask:
        if not ask("SELECT 1 FROM fleetcast_writers"):
            return Stored()
        events = ask("SELECT number, seq, event FROM fleetcast_events WHERE part = 0 ORDER BY number")
        records = dict(ask("SELECT seq, record FROM fleetcast_jobs"))
        payloads = dict(ask("SELECT seq, payload FROM fleetcast_payloads"))
    jobs = {seq: _job(data, payloads.get(seq)) for seq, data in records.items()}
    changes: dict[int, list[Change]] = defaultdict(list)
    told = {}
    for number, seq, data in events:
        event = msgspec.json.decode(data, type=HistoryEvent)
        changes[seq].append(Change(event.status, event.event))
        told[number] = (jobs[seq].job_id, event.status.value)
    assert set(changes) == set(jobs), "jobs without events, or events without a job"
    for seq, path in changes.items():
        _check(jobs[seq], path)
    return Stored({job.job_id: final_of(job, changes[seq]) for seq, job in jobs.items()}, told)


def _job(record: bytes, payload: bytes | None) -> Job:
    job = msgspec.json.decode(record, type=JobRecord).job
    return msgspec.structs.replace(job, payload=msgspec.json.decode(payload)) if payload else job


def _check(job: Job, path: list[Change]) -> None:
    before: JobStatus | None = None
    for change in path:
        assert (before, change.event, change.status) in LEGAL, (job.job_id, path)
        before = change.status
    assert before is job.status, (job, path)


def message_of(event: bytes) -> tuple[str, str]:
    told = msgspec.json.decode(event, type=JobStatusChanged)
    return told.job_id, told.status


@contextmanager
def _reading(store: str) -> Iterator[Any]:
    if store.startswith("sqlite:"):
        path = Path(store.removeprefix("sqlite:")) / "jobs.sqlite3"
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.execute("BEGIN")
            yield lambda sql: _rows(connection, sql)
        finally:
            connection.close()
        return
    with psycopg.connect(store) as server:
        # Until the session of a writer that was killed is over, and what it sent is done or not.
        server.execute("SELECT pg_advisory_xact_lock(hashtext('fleetcast jobs'))")
        yield lambda sql: _rows(server, sql)


def _rows(connection: Any, sql: str) -> list[Any]:
    try:
        return list(connection.execute(sql).fetchall())
    except (sqlite3.OperationalError, psycopg.errors.UndefinedTable) as error:
        if "no such table" in str(error) or "does not exist" in str(error):
            return []  # killed while it was made
        raise
