"""Disks without room, and files that are not ours: faults that need root to be made."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores.kept import Kept, sqlite_tables
from stores.small_disk import SmallDisk

from actors.database import StoreRefused, StoreUnreachable

pytestmark = pytest.mark.system

NOBODY = 65_534
FILES = ("jobs.sqlite3", "jobs.mark", "jobs.lock")


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anywhere."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Nobody's, with a store of nobody's in it."""
    folder = Path(tempfile.mkdtemp(prefix="store-", dir="/tmp"))
    os.chown(folder, NOBODY, NOBODY)
    with as_nobody():
        kept = Kept(lambda: sqlite_tables(folder))
        kept.submit(3)
        kept.close()
    yield folder
    shutil.rmtree(folder)


def refusal(folder: Path) -> str:
    with as_nobody(), pytest.raises(StoreRefused) as refused:
        sqlite_tables(folder).open(0)
    text = str(refused.value)
    assert text.startswith(f"cannot use {folder / 'jobs.sqlite3'} (")
    assert text.endswith(": the folder must exist, and it and its files must be ours to read and to write")
    return text


def test_nobody_may_use_what_is_nobodys(folder: Path) -> None:
    with as_nobody():
        kept = Kept(lambda: sqlite_tables(folder))
        kept.submit()
        kept.reopen()
        assert len(kept.rest.records) == 4
        kept.close()


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_owner_is_refused(folder: Path, name: str) -> None:
    os.chown(folder / name, 0, 0)
    assert "ermi" in refusal(folder) or "unable to open" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_may_only_be_read_is_refused(folder: Path, name: str) -> None:
    os.chown(folder / name, 0, 0)
    (folder / name).chmod(0o444)
    refusal(folder)


def test_a_folder_where_no_log_can_be_made_is_refused(folder: Path) -> None:
    for log in folder.glob("*-*"):
        log.unlink()
    os.chown(folder, 0, 0)
    folder.chmod(0o555)
    refusal(folder)


def test_a_folder_that_may_not_be_entered_is_refused(folder: Path) -> None:
    os.chown(folder, 0, 0)
    folder.chmod(0o700)
    refusal(folder)


def test_a_disk_that_fills_up_refuses_the_write_and_keeps_what_was_written(small_disk: SmallDisk) -> None:
    kept = Kept(lambda: sqlite_tables(small_disk.folder))
    kept.submit(3)
    before = kept.everything()
    small_disk.fill()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        kept.submit(100, payload={"size": "x" * 10_000})
    kept.close()
    small_disk.empty()
    kept.open()
    assert kept.everything() == before
    kept.close()


def test_a_disk_that_is_full_when_the_log_is_copied_keeps_what_was_acknowledged(
    small_disk: SmallDisk,
) -> None:
    kept = Kept(lambda: sqlite_tables(small_disk.folder))
    kept.submit(100, payload={"size": "x" * 10_000})
    kept.tables.compact()  # the log begins anew, in the room that it has
    small_disk.fill()
    kept.submit(50, payload={"size": "y" * 10_000})
    before = kept.everything()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        kept.tables.compact()
    kept.close()
    small_disk.empty()
    kept.open()
    assert kept.everything() == before
    kept.close()


def test_a_store_on_a_full_disk_asks_for_room_and_may_be_tried_again(small_disk: SmallDisk) -> None:
    small_disk.fill()
    with pytest.raises(StoreUnreachable, match="make room on its disk"):
        sqlite_tables(small_disk.folder).open(0)
    small_disk.empty()
    kept = Kept(lambda: sqlite_tables(small_disk.folder))
    kept.submit()
    kept.close()


def test_a_store_on_a_disk_that_may_only_be_read_is_refused_and_whole_when_it_may_be_written(
    small_disk: SmallDisk,
) -> None:
    kept = Kept(lambda: sqlite_tables(small_disk.folder))
    kept.submit(3)
    before = kept.everything()
    kept.close()
    small_disk.mount("ro")
    with pytest.raises(StoreRefused, match="ours to read and to write"):
        sqlite_tables(small_disk.folder).open(0)
    small_disk.mount("rw")
    kept.open()
    assert kept.everything() == before
    kept.close()
