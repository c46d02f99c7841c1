"""The registry's store: one document a robot, a key or a kept reply, replaced as a whole."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Sequence

import msgspec

from actors.database import Database, Row, Table
from actors.writer import UNREADABLE, Counters, Opening, Writer, damaged

MIGRATIONS = (
    (
        "CREATE TABLE fleetcast_documents (kind {text} NOT NULL, id {text} NOT NULL, "
        "check_sum {int} NOT NULL, document {bytes} NOT NULL, PRIMARY KEY (kind, id))",
    ),
)
DOCUMENTS = Table(
    "fleetcast_documents", {"kind": "text", "id": "text", "check_sum": "int", "document": "bytes"}, keys=2
)


class Document(msgspec.Struct, frozen=True):
    """`data` None: it is no more."""

    kind: str
    id: str
    data: bytes | None


class DocumentTables:
    blocking = True

    def __init__(self, database: Database, fleet: str, now_ns: Callable[[], int] = lambda: 0) -> None:
        self._database = database
        self._writer = Writer(database, "registry", fleet, MIGRATIONS)
        self._known: set[tuple[str, str]] = set()
        self.now_ns = now_ns

    def open(self) -> tuple[int, list[Document]]:
        """The reading of the clock at the last commit, and all documents. Raises StoreRefused, or
        StoreUnreachable."""
        return self._writer.open(self._read)

    def _read(self, opening: Opening) -> tuple[int, list[Document]]:
        counters = opening.counters
        rows = self._database.query("SELECT kind, id, check_sum, document FROM fleetcast_documents")
        if len(rows) != counters.live:
            raise damaged(self._database, f"the number of its documents ({len(rows)} of {counters.live})")
        documents = [self._whole(row) for row in rows]
        self._known = {(document.kind, document.id) for document in documents}
        return counters.clock_ns, documents

    def _whole(self, row: Row) -> Document:
        kind, name, check_sum, data = row
        with contextlib.suppress(*UNREADABLE):
            if zlib.crc32(data) == check_sum:
                return Document(kind, name, data)
        raise damaged(self._database, f"{kind} {name}")

    def write(self, records: Sequence[Document]) -> None:
        newest = {(document.kind, document.id): document.data for document in records}
        kept = [(*key, zlib.crc32(data), data) for key, data in newest.items() if data is not None]
        gone = [key for key, data in newest.items() if data is None]

        def work() -> None:
            self._database.upsert(DOCUMENTS, kept)
            for key in gone:
                self._database.execute("DELETE FROM fleetcast_documents WHERE kind = ? AND id = ?", key)

        fresh, lost = newest.keys() - self._known - set(gone), self._known.intersection(gone)
        live = len(self._known) + len(fresh) - len(lost)
        self._writer.commit(work, Counters(live=live, clock_ns=self.now_ns()))
        self._known |= fresh
        self._known -= lost

    def note_clock(self) -> None:
        """Nothing here is measured over a restart."""

    def clean(self, wall_ns: int) -> int:
        return 0

    def compact(self) -> bool:
        return self._database.compact()

    def begin_log(self) -> None:
        self._database.begin_log()

    def close(self) -> None:
        self._database.close()


class MemoryDocuments:
    """Keeps nothing, for tests."""

    blocking = False

    def __init__(self) -> None:
        self.now_ns: Callable[[], int] = lambda: 0

    def open(self) -> tuple[int, list[Document]]:
        return 0, []

    def write(self, records: Sequence[Document]) -> None:
        pass

    def note_clock(self) -> None:
        pass

    def clean(self, wall_ns: int) -> int:
        return 0

    def compact(self) -> bool:
        return False

    def begin_log(self) -> None:
        pass

    def close(self) -> None:
        pass
