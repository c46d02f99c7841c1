"""What the tables of the journal need of a database: the same statements for SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import msgspec

from fleet.errors import Misuse

Row = tuple[Any, ...]
Kind = Literal["int", "text", "bytes"]


class StoreRefused(Misuse):
    """This store must not be opened: it is damaged, newer, another fleet's, or not to be written. Somebody
    has to look at it; trying again changes nothing."""

    default_code = "store_refused"


class StoreHeld(StoreRefused):
    """Somebody else writes to it, who may be about to end."""


class StoreUnreachable(Exception):
    """The connection is gone; whether the last transaction was committed is not known."""


class Table(msgspec.Struct, frozen=True, eq=False):
    """The first `keys` columns are the primary key."""

    name: str
    columns: dict[str, Kind]
    keys: int = 1


class Database(Protocol):
    """One connection that writes, used by one thread at a time, and one that reads only, for any thread.
    Placeholders are `?`. Types in DDL are written {id}, {int}, {text} and {bytes}."""

    name: str  # for people: where it is, without a password

    def connect(self) -> None:
        """Again, if it was lost. Raises StoreRefused or StoreUnreachable."""

    def judged(self) -> AbstractContextManager[None]:
        """While it is being opened or read: what the database says against it becomes StoreRefused or, where
        it may be another tomorrow, StoreHeld or StoreUnreachable."""

    def hold(self, component: str) -> bool:
        """Keeps others out until this process ends, after waiting for one that is about to; False if another
        stays. The epoch of the writer is what fences; this tells somebody who starts a second fleet."""

    def settle(self) -> None:
        """Once, when it is found to be ours and before the first write: makes safe what is in it, whatever
        became of the process that wrote it."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commits at the end, durably; on an exception nothing of it happened."""

    def lock(self, name: str) -> None:
        """Until the end of this transaction, alone among all processes that ask for the same."""

    def define(self, ddl: str) -> None: ...

    def execute(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Returns how many rows it touched."""

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Row]: ...

    def insert(self, table: Table, rows: Sequence[Row]) -> None: ...

    def upsert(self, table: Table, rows: Sequence[Row]) -> None:
        """Rows of one call have different keys."""

    def read(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """On the reading connection: what was committed."""

    def mark(self, commits: int) -> None:
        """Notes outside of the database how far it has come, if there is a place for that."""

    def marked(self) -> int: ...

    def compact(self) -> bool:
        """Beside the writer: gives back what past writes hold. True if `begin_log` is due."""

    def begin_log(self) -> None:
        """Between two transactions: the log begins anew, if nobody reads from it."""

    def close(self) -> None:
        """Also one that was opened in part, or refused."""
