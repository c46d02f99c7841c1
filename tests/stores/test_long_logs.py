"""SQLite's log, while commits come all the time: it begins anew before it has grown for long."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from pathlib import Path

import pytest
from stores.kept import FLEET, Kept, sqlite_file, sqlite_tables

from actors.broadcaster import Broadcaster
from actors.job_store import JobStoreRoom
from fleet.limits import Limits
from fleet.messages import JobSpec, Submit

BOUND = 100_000


@pytest.fixture(autouse=True)
def _short_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.sqlite.WAL_BYTES", BOUND)


def log_bytes(folder: Path) -> int:
    return (folder / "jobs.sqlite3-wal").stat().st_size


def fill(kept: Kept, until_bytes: int, folder: Path) -> None:
    while log_bytes(folder) <= until_bytes:
        kept.submit(10)


def test_a_log_that_is_long_begins_anew(tmp_path: Path) -> None:
    kept = Kept(lambda: sqlite_tables(tmp_path))
    assert not kept.tables.compact()
    fill(kept, BOUND, tmp_path)
    assert kept.tables.compact()
    kept.tables.begin_log()
    assert log_bytes(tmp_path) == 0
    assert not kept.tables.compact()
    before = kept.everything()
    kept.reopen()
    assert kept.everything() == before
    kept.close()


def test_somebody_who_reads_for_long_keeps_the_log_and_stops_nobody(tmp_path: Path) -> None:
    kept = Kept(lambda: sqlite_tables(tmp_path))
    reader = sqlite3.connect(sqlite_file(tmp_path), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM fleetcast_jobs").fetchall()
    fill(kept, BOUND, tmp_path)
    assert kept.tables.compact()
    kept.tables.begin_log()
    assert log_bytes(tmp_path) > BOUND
    assert not kept.tables.compact()  # it is left alone until it has grown by as much again
    fill(kept, 2 * BOUND + BOUND // 2, tmp_path)
    assert kept.tables.compact()
    reader.close()
    kept.tables.begin_log()
    assert log_bytes(tmp_path) == 0
    kept.close()


async def test_a_room_that_writes_all_the_time_keeps_its_log_short(tmp_path: Path) -> None:
    limits = Limits(compact_interval_ms=1)
    room = JobStoreRoom(limits, Broadcaster(limits), Broadcaster(limits), f"sqlite:{tmp_path}", FLEET)
    long = False
    for number in itertools.count():
        await room.execute([Submit([f"j{number}"], [JobSpec(name="weld", payload={"x": "y" * 5_000})])])
        if long and log_bytes(tmp_path) < BOUND:
            break
        long = long or log_bytes(tmp_path) > BOUND
        await asyncio.sleep(0)
    await room.close()
