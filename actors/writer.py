"""Who may write to a store: schema, fleet and writer epoch, asserted by every transaction."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from actors import failpoints
from actors.database import Database, StoreRefused, StoreUnreachable

RECONNECT_S = 10.0
KEPT_OPENINGS = 1_000

_BOOTSTRAP = (
    "CREATE TABLE IF NOT EXISTS fleetcast_writers (component {text} PRIMARY KEY, fleet {text} NOT NULL, "
    "version {int} NOT NULL, epoch {int} NOT NULL, commits {int} NOT NULL, counters {bytes} NOT NULL)",
    "CREATE TABLE IF NOT EXISTS fleetcast_openings (component {text} NOT NULL, epoch {int} NOT NULL, "
    "incarnation {text} NOT NULL, number {int} NOT NULL, PRIMARY KEY (component, epoch))",
)


class LostWriter(Exception):
    """A newer writer opened this store, or the store lost what it had committed: this process must exit."""


class Counters(msgspec.Struct):
    """Where a component stands. `number`: of the next event; `part`: of the last; `seq`: of the next job;
    `clock_ns`: of the actor's own clock."""

    number: int = 0
    part: int = 0
    seq: int = 1
    clock_ns: int = 0


class Opening(msgspec.Struct, frozen=True):
    """`incarnation` names this opening. `former` names earlier ones, with the number that the next event had
    when each ended: what was told under another name, or beyond that number, is not of this history."""

    incarnation: str
    former: dict[str, int]
    counters: Counters


class Writer:
    """The newest to open a component is its writer; an older one learns it by its next transaction."""

    def __init__(
        self, database: Database, component: str, fleet: str, migrations: Sequence[Sequence[str]]
    ) -> None:
        self._database = database
        self._component = component
        self._fleet = fleet
        self._migrations = migrations
        self._epoch = 0
        self._commits = 0

    # -- opening

    def open(self) -> Opening:
        """Brings the schema up to date and takes the next epoch. Raises StoreRefused."""
        self._database.connect()
        if not self._database.hold(self._component):
            raise StoreRefused(f"{self._database.name} is in use by another fleet that runs: stop that first")
        with self._database.transaction():
            self._database.lock("fleetcast")
            for ddl in _BOOTSTRAP:
                self._database.define(ddl)
        for version in range(len(self._migrations)):
            self._migrate(version)
        return self._take()

    def _migrate(self, version: int) -> None:
        """To `version` + 1, unless somebody was faster."""
        database = self._database
        with database.transaction():
            database.lock("fleetcast")
            if self._checked_version() != version:
                return
            for ddl in self._migrations[version]:
                database.define(ddl)
                failpoints.hit(failpoints.IN_MIGRATION)
            sql = "UPDATE fleetcast_writers SET version = ? WHERE component = ?"
            if not database.execute(sql, (version + 1, self._component)):
                row = (self._component, self._fleet, 1, 0, 0, msgspec.json.encode(Counters()))
                database.execute("INSERT INTO fleetcast_writers VALUES (?, ?, ?, ?, ?, ?)", row)

    def _checked_version(self) -> int:
        rows = self._database.query(
            "SELECT fleet, version, commits FROM fleetcast_writers WHERE component = ?", (self._component,)
        )
        fleet, version, commits = rows[0] if rows else (self._fleet, 0, 0)
        name, known, marked = self._database.name, len(self._migrations), self._database.marked()
        if fleet != self._fleet:
            raise StoreRefused(f"{name} is the store of the fleet {fleet!r}, not of {self._fleet!r}")
        if version > known:
            raise StoreRefused(f"{name} has schema {version}, this fleetcast knows {known}: use a newer one")
        if commits < marked:
            raise StoreRefused(
                f"{name} lost commits that were acknowledged ({marked - commits} of {marked}): restore it "
                "from a backup, its .mark file with it; without that file what is left is taken as it is"
            )
        return int(version)

    def _take(self) -> Opening:
        database, component = self._database, self._component
        with database.transaction():
            database.lock("fleetcast")
            self._checked_version()
            [(epoch, commits, counters)] = database.query(
                "SELECT epoch, commits, counters FROM fleetcast_writers WHERE component = ?", (component,)
            )
            self._epoch, self._commits = epoch + 1, commits + 1
            database.execute(
                "UPDATE fleetcast_writers SET epoch = ?, commits = ? WHERE component = ?",
                (self._epoch, self._commits, component),
            )
            opening = self._note_opening(msgspec.json.decode(counters, type=Counters))
        database.mark(self._commits)
        return opening

    def _note_opening(self, counters: Counters) -> Opening:
        """Each row has the number at its beginning, which is where the one before it ended."""
        database, component = self._database, self._component
        incarnation = secrets.token_hex(6)
        sql = "SELECT incarnation, number FROM fleetcast_openings WHERE component = ? ORDER BY epoch"
        rows = database.query(sql, (component,))
        ends = [number for _, number in rows[1:]] + [counters.number]
        database.execute(
            "INSERT INTO fleetcast_openings VALUES (?, ?, ?, ?)",
            (component, self._epoch, incarnation, counters.number),
        )
        database.execute(
            "DELETE FROM fleetcast_openings WHERE component = ? AND epoch <= ?",
            (component, self._epoch - KEPT_OPENINGS),
        )
        return Opening(incarnation, {name: end for (name, _), end in zip(rows, ends, strict=False)}, counters)

    # -- writing

    def commit(self, work: Callable[[], None], counters: Counters) -> None:
        """`work` in one transaction that asserts the epoch. After a lost connection it is found out whether
        the transaction was committed, and it is done again if not. Raises LostWriter."""
        until = time.monotonic() + RECONNECT_S
        while True:
            try:
                with self._owned(counters):
                    work()
                break
            except StoreUnreachable:
                if self._resume(until):
                    break
        self._commits += 1
        self._database.mark(self._commits)

    @contextlib.contextmanager
    def _owned(self, counters: Counters) -> Iterator[None]:
        sql = (
            "UPDATE fleetcast_writers SET commits = ?, counters = ? "
            "WHERE component = ? AND epoch = ? AND commits = ?"
        )
        row = (self._commits + 1, msgspec.json.encode(counters), self._component, self._epoch, self._commits)
        with self._database.transaction():
            if self._database.execute(sql, row) != 1:
                raise LostWriter(f"{self._database.name} has a newer writer than this one")
            yield

    def _resume(self, until: float) -> bool:
        """Connects again. True if the transaction that was under way is in the store."""
        while True:
            try:
                self._database.connect()
                if not self._database.hold(self._component):
                    raise LostWriter(f"{self._database.name} was taken by another writer")
                sql = "SELECT epoch, commits FROM fleetcast_writers WHERE component = ?"
                [(epoch, commits)] = self._database.query(sql, (self._component,))
                break
            except StoreUnreachable:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        if epoch != self._epoch or commits not in (self._commits, self._commits + 1):
            raise LostWriter(f"{self._database.name} is not where this writer left it")
        return bool(commits == self._commits + 1)
