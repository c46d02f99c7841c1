"""Who may write to a store: schema, fleet and writer epoch, asserted by every transaction."""

from __future__ import annotations

import contextlib
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from actors import failpoints
from actors.database import Database, StoreHeld, StoreRefused, StoreUnreachable

Result = TypeVar("Result")
RECONNECT_S = 10.0
KEPT_OPENINGS = 1_000

_BOOTSTRAP = (
    "CREATE TABLE IF NOT EXISTS fleetcast_writers (component {text} PRIMARY KEY, fleet {text} NOT NULL, "
    "version {int} NOT NULL, epoch {int} NOT NULL, commits {int} NOT NULL, counters {bytes} NOT NULL, "
    "check_sum {int} NOT NULL)",
    "CREATE TABLE IF NOT EXISTS fleetcast_openings (component {text} NOT NULL, epoch {int} NOT NULL, "
    "incarnation {text} NOT NULL, number {int} NOT NULL, PRIMARY KEY (component, epoch))",
)


class LostWriter(Exception):
    """A newer writer opened this store, or the store lost what it had committed: this process must exit."""


class Counters(msgspec.Struct, frozen=True):
    """Where a component stands. `number`: of the next event; `part`: of the last; `seq`: of the next job;
    `live`: how many jobs are not finished; `clock_ns`: of the actor's own clock."""

    number: int = 0
    part: int = 0
    seq: int = 1
    live: int = 0
    clock_ns: int = 0


class Opening(msgspec.Struct, frozen=True):
    """`incarnation` names this opening. `former` names earlier ones, with the number that the next event had
    when each ended: what was told under another name, or beyond that number, is not of this history."""

    incarnation: str
    former: dict[str, int]
    counters: Counters


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """A component's row. `commits` counts its transactions, so that the number tells which are in."""

    component: str
    fleet: str
    version: int = 0
    epoch: int = 0
    commits: int = 0
    counters: Counters = Counters()

    def row(self) -> tuple[str | int | bytes, ...]:
        *columns, counters = msgspec.structs.astuple(self)
        return *columns, msgspec.json.encode(counters), self.check_sum()

    def check_sum(self) -> int:
        return zlib.crc32(msgspec.json.encode(self))


_counters = msgspec.json.Decoder(Counters).decode
UNREADABLE = (TypeError, ValueError, msgspec.MsgspecError)


class Writer:
    """The newest to open a component is its writer; an older one learns it by its next transaction."""

    def __init__(
        self, database: Database, component: str, fleet: str, migrations: Sequence[Sequence[str]]
    ) -> None:
        self._database = database
        self._component = component
        self._fleet = fleet
        self._migrations = migrations
        self._place = _Place(component, fleet)

    # -- opening

    def open(self, read: Callable[[Opening], Result]) -> Result:
        """Brings the schema up to date, takes the next epoch, and reads what is there. Raises StoreRefused,
        and then leaves the store as it was and is open to nobody; or StoreUnreachable."""
        try:
            with self._database.judged():
                return read(self._open())
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> Opening:
        database = self._database
        database.connect()
        if not database.hold(self._component):
            raise StoreHeld(f"{database.name} is in use by another fleet that runs: stop that first")
        with database.transaction():
            database.lock("fleetcast")
            for ddl in _BOOTSTRAP:
                database.define(ddl)
            found = self._found()
        database.settle()
        for version in range(found.version, len(self._migrations)):
            self._migrate(version)
        return self._take()

    def _migrate(self, version: int) -> None:
        """To `version` + 1, unless somebody was faster."""
        database = self._database
        with database.transaction():
            database.lock("fleetcast")
            place = self._found()
            if place.version != version:
                return
            for ddl in self._migrations[version]:
                database.define(ddl)
                failpoints.hit(failpoints.IN_MIGRATION)
            self._put(msgspec.structs.replace(place, version=version + 1))

    def _found(self) -> _Place:
        """Raises StoreRefused for what is not ours to write to."""
        columns = "component, fleet, version, epoch, commits, counters, check_sum"
        sql = f"SELECT {columns} FROM fleetcast_writers WHERE component = ?"
        rows = self._database.query(sql, (self._component,))
        place = self._checked(*rows[0]) if rows else _Place(self._component, self._fleet)
        name, known, marked = self._database.name, len(self._migrations), self._database.marked()
        if place.fleet != self._fleet:
            raise StoreRefused(f"{name} is the store of the fleet {place.fleet!r}, not of {self._fleet!r}")
        if place.version > known:
            raise StoreRefused(
                f"{name} has schema {place.version}, this fleetcast knows {known}: use a newer one"
            )
        if place.commits < marked:
            raise StoreRefused(
                f"{name} lost {marked - place.commits} of {marked} commits that were acknowledged: restore "
                "it from a newer backup; to go on from what it has, delete its .mark file"
            )
        return place

    def _checked(self, *row: Any) -> _Place:
        with contextlib.suppress(*UNREADABLE):
            component, fleet, version, epoch, commits, data, check_sum = row
            place = _Place(component, fleet, version, epoch, commits, _counters(data))
            if place.check_sum() == check_sum:
                return place
        raise damaged(self._database, f"the row of its writer ({self._component})")

    def _put(self, place: _Place) -> None:
        database = self._database
        database.execute("DELETE FROM fleetcast_writers WHERE component = ?", (self._component,))
        database.execute("INSERT INTO fleetcast_writers VALUES (?, ?, ?, ?, ?, ?, ?)", place.row())

    def _take(self) -> Opening:
        database = self._database
        with database.transaction():
            database.lock("fleetcast")
            # Locks the row first: an older writer may be about to commit.
            sql = "UPDATE fleetcast_writers SET component = component WHERE component = ?"
            database.execute(sql, (self._component,))
            found = self._found()
            place = msgspec.structs.replace(found, epoch=found.epoch + 1, commits=found.commits + 1)
            self._put(place)
            opening = self._note_opening(place)
        self._place = place
        database.mark(place.commits)
        return opening

    def _note_opening(self, place: _Place) -> Opening:
        """Each row has the number at its beginning, which is where the one before it ended."""
        database, component = self._database, self._component
        incarnation = secrets.token_hex(6)
        rows = self._openings()
        ends = [number for _, number in rows[1:]] + [place.counters.number]
        database.execute(
            "INSERT INTO fleetcast_openings VALUES (?, ?, ?, ?)",
            (component, place.epoch, incarnation, place.counters.number),
        )
        database.execute(
            "DELETE FROM fleetcast_openings WHERE component = ? AND epoch <= ?",
            (component, place.epoch - KEPT_OPENINGS),
        )
        former = {name: end for (name, _), end in zip(rows, ends, strict=False)}
        return Opening(incarnation, former, place.counters)

    def _openings(self) -> list[tuple[str, int]]:
        sql = "SELECT incarnation, number FROM fleetcast_openings WHERE component = ? ORDER BY epoch"
        try:
            return msgspec.convert(self._database.query(sql, (self._component,)), list[tuple[str, int]])
        except msgspec.ValidationError:
            raise damaged(self._database, f"the list of its openings ({self._component})") from None

    # -- writing

    def commit(self, work: Callable[[], None], counters: Counters) -> None:
        """`work` in one transaction that asserts the epoch. After a lost connection it is found out whether
        the transaction was committed, and it is done again if not. Raises LostWriter."""
        until = time.monotonic() + RECONNECT_S
        place = msgspec.structs.replace(self._place, commits=self._place.commits + 1, counters=counters)
        while True:
            try:
                with self._owned(place):
                    work()
                break
            except StoreUnreachable:
                if self._resume(until) == place:
                    break
        self._place = place
        self._database.mark(place.commits)

    @contextlib.contextmanager
    def _owned(self, place: _Place) -> Iterator[None]:
        sql = (
            "UPDATE fleetcast_writers SET commits = ?, counters = ?, check_sum = ? "
            "WHERE component = ? AND epoch = ? AND commits = ?"
        )
        *_, commits, counters, check_sum = place.row()
        where = (place.component, place.epoch, self._place.commits)
        with self._database.transaction():
            if self._database.execute(sql, (commits, counters, check_sum, *where)) != 1:
                raise LostWriter(f"{self._database.name} has a newer writer than this one")
            yield

    def _resume(self, until: float) -> _Place:
        """Connects again. What is in the store tells whether the transaction that was under way is."""
        while True:
            try:
                self._database.connect()
                if not self._database.hold(self._component):
                    raise LostWriter(f"{self._database.name} was taken by another writer")
                found = self._found()
                break
            except StoreUnreachable:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        if found.epoch != self._place.epoch:
            raise LostWriter(f"{self._database.name} has a newer writer than this one")
        if found.commits not in (self._place.commits, self._place.commits + 1):
            raise LostWriter(f"{self._database.name} lost commits that were acknowledged")
        return found


def damaged(database: Database, what: str) -> StoreRefused:
    return StoreRefused(
        f"{database.name} is damaged: {what} is not what was written; restore it from a backup, or move it "
        "away to begin with an empty store"
    )
