"""A SQLite file: WAL, every commit synced."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from actors import failpoints
from actors.database import Row, StoreHeld, StoreRefused, StoreUnreachable, Table

TYPES = {"id": "INTEGER", "int": "INTEGER", "text": "TEXT", "bytes": "BLOB"}
BUSY_S = 10.0
HOLD_S = 5.0
WAL_BYTES = 64 * 1024 * 1024  # beyond it the log is begun anew, whenever it has grown by so much
READERS_MS = 200  # for which that waits, while nobody can write
ROWS = (64, 16, 4, 1)
_MARK = struct.Struct("<QI")


class SqliteDatabase:
    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._mark_path = path.with_suffix(".mark")
        self._reading = threading.Lock()
        self._lock = -1
        self._open_ones: list[sqlite3.Connection] = []
        self._map: mmap.mmap | None = None
        self._settled = False
        self._long = WAL_BYTES

    def connect(self) -> None:
        if self.marked() and not (self._path.exists() and self._path.stat().st_size):
            raise StoreRefused(f"{self.name} is empty or gone, and was not: {_RESTORE}")
        with self.judged():
            self._writer = self._open("rwc")
            self._refuse_what_is_not_ours()
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA wal_autocheckpoint=0")  # `compact` does it, beside the writer
            self._compactor = self._open("rw")
            self._compactor.execute(f"PRAGMA busy_timeout={READERS_MS}")
            self._reader = self._open("ro")
            [(found,)] = self._reader.execute("PRAGMA quick_check(1)").fetchall()
            if found != "ok":
                raise StoreRefused(f"{self.name} is damaged ({' '.join(found.split())}): {_RESTORE}")
            self._map = self._open_mark()

    def _open(self, mode: str) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode={mode}"
        made = sqlite3.connect(
            uri,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
            cached_statements=256,
        )
        self._open_ones.append(made)
        self._path.chmod(0o600)  # payloads may hold secrets
        # A text that cannot be read is not what was written, and is found to be that.
        made.text_factory = lambda data: data.decode(errors="replace")
        made.execute("PRAGMA synchronous=FULL")
        made.execute("PRAGMA cache_size=-65536")
        return made

    def _refuse_what_is_not_ours(self) -> None:
        tables = {name for (name,) in self._writer.execute("SELECT name FROM sqlite_schema")}
        if tables and "fleetcast_writers" not in tables:
            raise StoreRefused(f"{self.name} is a database of something else: choose another folder")

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            kind, hint = _judgement(error)
            raise kind(f"cannot use {self.name} ({_reason(error)}): {hint}") from None

    def hold(self, component: str) -> bool:
        until = time.monotonic() + HOLD_S
        with self.judged():
            self._lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.05)

    def settle(self) -> None:
        """The log is copied into the file and begins anew. After a failed sync the system may show pages that
        never reached the disk and call them clean: what is built on them is written again elsewhere."""
        self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._settled = True

    # -- writing

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
            failpoints.hit(failpoints.AFTER_APPEND)
            self._writer.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise

    def lock(self, name: str) -> None:
        """A transaction is alone."""

    def define(self, ddl: str) -> None:
        self._writer.execute(ddl.format(**TYPES))

    def execute(self, sql: str, args: Sequence[Any] = ()) -> int:
        return self._writer.execute(sql, args).rowcount

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        with self.judged():
            return self._writer.execute(sql, args).fetchall()

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        self._bulk(table, rows, "")

    def upsert(self, table: Table, rows: Sequence[Row]) -> None:
        self._bulk(table, rows, _on_conflict(table))

    def _bulk(self, table: Table, rows: Sequence[Row], rest: str) -> None:
        """Few statements with many rows each: with every one the interpreter is given away, and on a busy
        actor it is long until it comes back. Their sizes are few, so that they are found prepared."""
        start = 0
        for size in ROWS:
            while len(rows) - start >= size:
                values = list(chain.from_iterable(rows[start : start + size]))
                self._writer.execute(_insert(table, size) + rest, values)
                start += size

    # -- beside the writer

    def read(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        with self._reading, self.judged():
            return self._reader.execute(sql, args).fetchall()

    def compact(self) -> bool:
        """Copies the log into the file. While commits come all the time it grows nevertheless: it begins anew
        only where all of it has been copied when somebody writes."""
        self._compactor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return self._log_bytes() > self._long

    def begin_log(self) -> None:
        """What is left is copied here, in the thread that writes: next to a busy writer a checkpoint that
        needs the log for itself waits in vain."""
        self._compactor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._long = self._log_bytes() + WAL_BYTES  # not at once again where somebody reads for long

    def _log_bytes(self) -> int:
        wal = self._path.with_name(self._path.name + "-wal")
        return wal.stat().st_size if wal.exists() else 0

    # -- the mark: a copy of the number of commits, which shows if the database has lost some

    def mark(self, commits: int) -> None:
        """Not synced, and after the commit: it may be behind the database, never ahead."""
        assert self._map is not None
        self._map[:] = _MARK.pack(commits, zlib.crc32(commits.to_bytes(8, "little")))

    def marked(self) -> int:
        """0 if there is none, or none that can be read."""
        with self.judged():
            data = self._mark_path.read_bytes() if self._mark_path.exists() else b""
        commits, check = _MARK.unpack(data) if len(data) == _MARK.size else (0, -1)
        return commits if check == zlib.crc32(commits.to_bytes(8, "little")) else 0

    def _open_mark(self) -> mmap.mmap:
        number = os.open(self._mark_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(number).st_size != _MARK.size:
                os.ftruncate(number, 0)
                os.pwrite(number, bytes(_MARK.size), 0)  # a hole would need room on the disk later
            return mmap.mmap(number, _MARK.size)
        finally:
            os.close(number)

    def close(self) -> None:
        """What was refused stays as it was found: SQLite would copy the log when its last connection closes,
        but for one that only reads."""
        with self._reading:
            if self._settled:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            for connection in self._open_ones:
                connection.close()
            self._open_ones.clear()
            self._settled = False
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@cache
def _insert(table: Table, rows: int) -> str:
    names, marks = ", ".join(table.columns), ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({names}) VALUES {', '.join([f'({marks})'] * rows)}"


@cache
def _on_conflict(table: Table) -> str:
    keys, rest = list(table.columns)[: table.keys], list(table.columns)[table.keys :]
    changes = ", ".join(f"{name} = excluded.{name}" for name in rest)
    return f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"


_RESTORE = "restore it from a backup, or move its folder away to begin with an empty store"


def _reason(error: Exception) -> str:
    return error.strerror or "it cannot be used" if isinstance(error, OSError) else str(error)


def _judgement(error: Exception) -> tuple[type[Exception], str]:
    text = str(error)
    if "malformed" in text or "not a database" in text:
        return StoreRefused, _RESTORE
    if "disk I/O" in text:
        return StoreUnreachable, "its disk fails"
    if "locked" in text:
        return StoreHeld, "another process holds it"
    if "full" in text or "No space" in text:
        return StoreUnreachable, "make room on its disk"
    return StoreRefused, "the folder must exist, and it and its files must be ours to read and to write"
