"""A PostgreSQL database: two connections of ours, one that writes and one that reads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import psycopg
from psycopg import sql as names
from psycopg.conninfo import conninfo_to_dict

from actors import failpoints
from actors.database import Row, StoreRefused, StoreUnreachable, Table
from actors.postgres_arrays import columns_of, register

TYPES = {"id": "BIGINT", "int": "BIGINT", "text": "TEXT", "bytes": "BYTEA"}
ARRAYS = {"int": "bigint[]", "text": "text[]", "bytes": "bytea[]"}
STATEMENT_BYTES = 64 * 1024 * 1024  # PostgreSQL ends a connection that sends it a value of 1 GB
CONNECT_S = 5
HOLD_S = 15.0  # longer than the server takes to give up a peer that vanished, with the settings below
# Each end gives up another that vanished; of several hosts the one that takes writes is ours. What was set
# for our role or database with others in mind (timeouts, isolation) would end a writer that is well.
SETTINGS = {
    "client_encoding": "UTF8",
    "connect_timeout": CONNECT_S,
    "application_name": "fleetcast",
    "target_session_attrs": "read-write",
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
}
OPTIONS = (
    "-c synchronous_commit=on -c tcp_keepalives_idle=4 -c tcp_keepalives_interval=2 "
    "-c tcp_keepalives_count=3 -c tcp_user_timeout=10000 -c idle_in_transaction_session_timeout=60000 "
    "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_isolation=read\\ committed"
)


class PostgresDatabase:
    def __init__(self, url: str) -> None:
        self._url = url
        try:
            where = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise StoreRefused("the URL of the store is none: postgresql://USER@HOST/DATABASE") from None
        self._options = f"{where.get('options', '')} {OPTIONS}"  # the last of two counts
        self.name = f"the PostgreSQL database {where.get('dbname', '')} at {where.get('host', 'localhost')}"
        self._writer: psycopg.Connection[Any] | None = None
        self._reader: psycopg.Connection[Any] | None = None
        self._reading = threading.Lock()
        self._pipeline: psycopg.Pipeline | None = None  # of the transaction under way

    def connect(self) -> None:
        self._drop(self._writer)
        self._writer = self._open()

    def _open(self) -> psycopg.Connection[Any]:
        try:
            made = psycopg.connect(self._url, autocommit=True, options=self._options, **SETTINGS)  # type: ignore[arg-type]
        except psycopg.OperationalError as error:
            raise StoreUnreachable(
                f"{self.name} does not answer ({_reason(error)}): is it running, and is --store right?"
            ) from None
        register(made)
        return made

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """A full disk, a server that goes down or one that only reads is not the fault of the store."""
        try:
            yield
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
            raise StoreUnreachable(f"cannot use {self.name} now: {_reason(error)}") from None
        except psycopg.Error as error:
            raise StoreRefused(f"cannot use {self.name}: {_reason(error)}") from None

    def hold(self, component: str) -> bool:
        """A lock of this session: it ends with the connection."""
        until = time.monotonic() + HOLD_S
        while not self.query("SELECT pg_try_advisory_lock(hashtext(?))", (f"fleetcast {component}",))[0][0]:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def settle(self) -> None:
        """The server has done it."""

    # -- writing

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Statements leave without waiting for the answers to those before them: three round trips fewer."""
        with self._reaching():
            try:
                with self._there().pipeline() as self._pipeline, self._there().transaction():
                    yield
                    failpoints.hit(failpoints.AFTER_APPEND)
            finally:
                self._pipeline = None

    def _there(self) -> psycopg.Connection[Any]:
        if self._writer is None or self._writer.closed:
            raise StoreUnreachable(f"{self.name} is not connected")
        return self._writer

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """A lost connection apart from what the server refused."""
        try:
            yield
        except psycopg.OperationalError as error:
            if self._writer is None or self._writer.closed or _ended(error):
                self._drop(self._writer)
                raise StoreUnreachable(f"{self.name}: {_reason(error)}") from None
            raise

    def lock(self, name: str) -> None:
        self.query("SELECT pg_advisory_xact_lock(hashtext(?))", (name,))

    def define(self, ddl: str) -> None:
        self.execute(ddl.format(**TYPES))

    def execute(self, sql: str, args: Sequence[Any] = ()) -> int:
        with self._reaching():
            cursor = self._there().execute(_placed(sql), args or None)
            if self._pipeline is not None:
                self._pipeline.sync()
            return cursor.rowcount

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        with self._reaching():
            return self._there().execute(_placed(sql), args or None).fetchall()

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        self._bulk(table, rows, b"")

    def upsert(self, table: Table, rows: Sequence[Row]) -> None:
        self._bulk(table, rows, _on_conflict(table))

    def _bulk(self, table: Table, rows: Sequence[Row], rest: bytes) -> None:
        """A statement for many rows, with an array a column: a statement a row costs a multiple."""
        for some in _portions(rows):
            columns = columns_of(list(table.columns.values()), some)
            with self._reaching():
                self._there().execute(_insert(table) + rest, columns)

    # -- reading

    def read(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """Connects again once, if the connection is gone."""
        with self._reading:
            try:
                return self._read(sql, args)
            except StoreUnreachable:
                return self._read(sql, args)

    def _read(self, sql: str, args: Sequence[Any]) -> list[Row]:
        if self._reader is None or self._reader.closed:
            self._reader = self._open()
        # No text of PostgreSQL has a NUL, so that nothing has such a name.
        args = [None if isinstance(value, str) and "\0" in value else value for value in args]
        with self.judged():
            return self._reader.execute(_placed(sql), args or None).fetchall()

    # -- the server looks after its files itself

    def mark(self, commits: int) -> None:
        pass

    def marked(self) -> int:
        return 0

    def compact(self) -> bool:
        return False

    def begin_log(self) -> None:
        pass

    def close(self) -> None:
        self._drop(self._writer)
        with self._reading:
            self._drop(self._reader)

    @staticmethod
    def _drop(connection: psycopg.Connection[Any] | None) -> None:
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()


def _placed(sql: str) -> Any:
    return sql.replace("?", "%s")


@cache
def _insert(table: Table) -> bytes:
    return (
        names.SQL("INSERT INTO {} ({}) SELECT * FROM unnest({})")
        .format(
            names.Identifier(table.name),
            names.SQL(", ").join(map(names.Identifier, table.columns)),
            names.SQL(", ").join(names.SQL(f"%s::{ARRAYS[kind]}") for kind in table.columns.values()),
        )
        .as_bytes()
    )


@cache
def _on_conflict(table: Table) -> bytes:
    columns = list(table.columns)
    changes = [
        names.SQL("{0} = excluded.{0}").format(names.Identifier(name)) for name in columns[table.keys :]
    ]
    return (
        names.SQL(" ON CONFLICT ({}) DO UPDATE SET {}")
        .format(
            names.SQL(", ").join(map(names.Identifier, columns[: table.keys])), names.SQL(", ").join(changes)
        )
        .as_bytes()
    )


def _portions(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Of `STATEMENT_BYTES`, and of what its last row has beyond: what is long in a row comes last."""
    begin = size = 0
    for index, row in enumerate(rows):
        size += len(row[-1])
        if size >= STATEMENT_BYTES:
            yield rows[begin : index + 1]
            begin, size = index + 1, 0
    if begin < len(rows):
        yield rows[begin:]


def _ended(error: psycopg.OperationalError) -> bool:
    """The connection, or what may be done with it: the library knows it as broken only once the server hung
    up, which is later than when it says so."""
    if isinstance(error, psycopg.errors.PipelineAborted):  # by what the server refused before
        return False
    return error.sqlstate is None or error.diag.severity_nonlocalized in ("FATAL", "PANIC")


def _reason(error: Exception) -> str:
    """One line, without what led to it."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line.rpartition(" failed: ")[2].removeprefix("FATAL:").strip()
