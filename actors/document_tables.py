"""The registry's store: one document a robot, a key or a kept reply, replaced as a whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import msgspec

from actors.database import Database, Row, StoreRefused, Table
from actors.writer import Counters, Writer

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
        self.now_ns = now_ns

    def open(self) -> tuple[int, list[Document]]:
        """The reading of the clock at the last commit, and all documents. Raises StoreRefused."""
        clock_ns = self._writer.open().counters.clock_ns
        rows = self._database.query("SELECT kind, id, check_sum, document FROM fleetcast_documents")
        return clock_ns, [self._whole(row) for row in rows]

    def _whole(self, row: Row) -> Document:
        kind, name, check_sum, data = row
        if zlib.crc32(data) != check_sum:
            raise StoreRefused(
                f"{self._database.name} is damaged: {kind} {name} is not what was written; restore it from a "
                "backup, its .mark file with it"
            )
        return Document(kind, name, bytes(data))

    def write(self, records: Sequence[Document]) -> None:
        newest = {(document.kind, document.id): document.data for document in records}
        kept = [(*key, zlib.crc32(data), data) for key, data in newest.items() if data is not None]
        gone = [key for key, data in newest.items() if data is None]

        def work() -> None:
            self._database.upsert(DOCUMENTS, kept)
            for key in gone:
                self._database.execute("DELETE FROM fleetcast_documents WHERE kind = ? AND id = ?", key)

        self._writer.commit(work, Counters(clock_ns=self.now_ns()))

    def note_clock(self) -> None:
        """Nothing here is measured over a restart."""

    def clean(self, wall_ns: int) -> int:
        return 0

    def compact(self) -> None:
        self._database.compact()

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

    def compact(self) -> None:
        pass

    def close(self) -> None:
        pass
