"""Who may write: one at a time, the newest, of this fleet, by a schema that is known."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores.kept import FLEET, LIMITS, Kept, files_of, put_back, sqlite_tables, tables_of, with_migrations

from actors import stores
from actors.database import StoreRefused
from actors.document_tables import Document, DocumentTables
from actors.job_tables import JobTables
from actors.writer import LostWriter
from fleet.job_record import JobsAtRest


@pytest.fixture
def quick_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is about to end: no use in waiting."""
    monkeypatch.setattr("actors.sqlite.HOLD_S", 0.0)
    monkeypatch.setattr("actors.postgres.HOLD_S", 0.0)


@pytest.fixture
def no_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the lock of the older writer were lost, as a file system or a proxy may do."""
    monkeypatch.setattr("actors.sqlite.SqliteDatabase.hold", lambda *_: True)
    monkeypatch.setattr("actors.postgres.PostgresDatabase.hold", lambda *_: True)


@contextlib.contextmanager
def opened(store: str, fleet: str = FLEET) -> Iterator[JobTables]:
    tables = tables_of(store, fleet=fleet)
    tables.open(0)
    yield tables
    tables.close()


def rows_of(store: str) -> Any:
    """All that is written, read beside the writers."""
    names = ("fleetcast_jobs", "fleetcast_events", "fleetcast_payloads", "fleetcast_writers")
    database = tables_of(store)._database
    database.connect()
    found = [sorted(database.query(f"SELECT * FROM {name}"), key=repr) for name in names]
    database.close()
    return found


# -- one at a time


def test_a_second_fleet_is_refused_while_the_first_runs(lasting: str, quick_holds: None) -> None:
    with opened(lasting), pytest.raises(StoreRefused, match="in use by another fleet that runs"):
        tables_of(lasting).open(0)
    with opened(lasting):
        pass


def test_one_that_starts_waits_for_one_that_ends(lasting: str) -> None:
    first = tables_of(lasting)
    first.open(0)
    second = tables_of(lasting)
    opening = threading.Thread(target=second.open, args=(0,))
    opening.start()
    first.close()
    opening.join(20)
    assert not opening.is_alive()
    second.note_clock()
    second.close()


def test_a_newer_writer_wins_and_the_older_writes_nothing_more(lasting: str, no_holds: None) -> None:
    old = Kept(lambda: tables_of(lasting))
    old.submit()
    new = Kept(lambda: tables_of(lasting))
    before = rows_of(lasting)
    for write in (old.submit, old.tables.note_clock, lambda: old.tables.clean(old.wall_ns)):
        with pytest.raises(LostWriter, match="newer writer"):
            write()
    assert rows_of(lasting) == before
    assert new.finish() == ["j1"]
    old.close()
    new.close()


def test_openings_take_turns_whoever_comes_at_once(lasting: str, no_holds: None) -> None:
    every = [tables_of(lasting) for _ in range(4)]
    threads = [threading.Thread(target=tables.open, args=(0,)) for tables in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    able = [tables for tables in every if can_write(tables)]
    assert len(able) == 1
    for tables in every:
        tables.close()


def can_write(tables: JobTables) -> bool:
    with contextlib.suppress(LostWriter):
        tables.note_clock()
        return True
    return False


# -- of this fleet, by a known schema


def test_the_store_of_another_fleet_is_refused(lasting: str) -> None:
    with opened(lasting):
        pass
    before = rows_of(lasting)
    with pytest.raises(StoreRefused, match="is the store of the fleet 'the fleet', not of 'another'"):
        tables_of(lasting, fleet="another").open(0)
    assert rows_of(lasting) == before


def test_a_store_that_was_refused_is_free_for_others(lasting: str, quick_holds: None) -> None:
    with opened(lasting):
        pass
    with pytest.raises(StoreRefused):
        tables_of(lasting, fleet="another").open(0)
    with opened(lasting):
        pass


def test_a_newer_schema_is_refused_and_untouched(lasting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        with_migrations(later, [["CREATE TABLE fleetcast_later (id {id} PRIMARY KEY)"]])
        with opened(lasting):
            pass
    before = rows_of(lasting)
    with pytest.raises(StoreRefused, match="use a newer one"):
        tables_of(lasting).open(0)
    assert rows_of(lasting) == before


def test_an_older_schema_is_brought_up_to_date_with_all_that_is_in_it(
    lasting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(lambda: tables_of(lasting))
    kept.finish(2)
    kept.submit()
    before = kept.everything()
    kept.close()
    with_migrations(monkeypatch, LATER)
    kept.open()
    assert kept.everything() == before
    assert kept.tables._database.query("SELECT count(*) FROM fleetcast_second") == [(0,)]
    kept.reopen()  # and not once more
    kept.close()


LATER = [
    [
        "CREATE TABLE fleetcast_first (id {id} PRIMARY KEY)",
        "ALTER TABLE fleetcast_jobs ADD COLUMN more {text}",
    ],
    ["CREATE TABLE fleetcast_second (id {id} PRIMARY KEY)"],
]


@pytest.mark.parametrize("failing", range(3))
def test_a_migration_that_is_interrupted_is_done_by_the_next_start(
    lasting: str, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    kept = Kept(lambda: tables_of(lasting))
    kept.submit()
    before = kept.everything()
    kept.close()
    with_migrations(monkeypatch, LATER)
    passes = iter(range(3))

    def interrupt(name: str) -> None:
        if name == "in-migration" and next(passes) == failing:
            raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr("actors.failpoints.hit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tables_of(lasting).open(0)
    kept.open()
    assert kept.everything() == before
    assert kept.tables._database.query("SELECT count(*) FROM fleetcast_second") == [(0,)]
    kept.close()


def test_jobs_and_robots_of_one_fleet_share_a_place(lasting: str) -> None:
    documents = stores.document_tables(lasting, FLEET)
    assert isinstance(documents, DocumentTables)
    with opened(lasting) as jobs:
        documents.open()
        documents.write([Document("robot", "r", b"{}")])
        jobs.note_clock()
    documents.close()


# -- the chain of openings


def test_every_opening_has_a_name_and_knows_where_the_earlier_ones_ended(lasting_kept: Kept) -> None:
    kept = lasting_kept
    first = kept.opening
    kept.submit(2)
    kept.reopen()
    second = kept.opening
    kept.submit(1)
    kept.reopen()
    assert first.former == {}
    assert second.former == {first.incarnation: 2}
    assert kept.opening.former == {first.incarnation: 2, second.incarnation: 3}
    assert len({first.incarnation, second.incarnation, kept.opening.incarnation}) == 3


def test_the_chain_is_bounded(lasting_kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.writer.KEPT_OPENINGS", 3)
    for _ in range(5):
        lasting_kept.reopen()
    assert len(lasting_kept.opening.former) == 3


def test_what_was_told_after_a_backup_is_not_of_the_restored_history(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    kept = Kept(lambda: sqlite_tables(folder))
    kept.submit(2)
    common = kept.opening.incarnation
    kept.close()
    backup = files_of(folder)
    kept.open()
    lost = kept.opening.incarnation
    kept.submit(3)
    kept.close()
    put_back(folder, backup)
    kept.open()
    assert kept.opening.former == {common: 2}
    assert lost not in kept.opening.former
    kept.close()


def test_an_older_backup_without_its_mark_is_refused_until_that_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    kept = Kept(lambda: sqlite_tables(folder))
    kept.submit()
    kept.close()
    shutil.copy(folder / "jobs.sqlite3", tmp_path / "backup")
    kept.open()
    kept.submit(3)
    kept.close()
    shutil.copy(tmp_path / "backup", folder / "jobs.sqlite3")
    with pytest.raises(StoreRefused, match=r"lost 2 of 4 commits .* delete its \.mark file"):
        kept.open()
    (folder / "jobs.mark").unlink()
    kept.open()
    assert [job.job_id for job in kept.jobs()] == ["j1"]
    kept.close()


def test_a_memory_store_is_empty_at_every_opening() -> None:
    kept = Kept(lambda: tables_of("memory:"))
    kept.submit()
    kept.reopen()
    assert kept.rest == JobsAtRest()
    assert kept.jobs() == []


def test_the_check_at_the_start_leaves_a_store_that_opens(lasting: str) -> None:
    stores.check(lasting, FLEET, LIMITS)
    with opened(lasting):
        pass
