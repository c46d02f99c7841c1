"""Requests that deleted a robot are known for as long as somebody may repeat them, and no longer."""

from __future__ import annotations

from pathlib import Path

from actors.document_tables import Document, DocumentTables
from actors.registry_documents import DELETION, REPEATED_S, Deletions, registered
from actors.sqlite import SqliteDatabase
from fleet.limits import SECOND

NOON_NS = 1_736_937_000_000_000_000


def test_a_deletion_is_written_once_and_forgotten_when_nobody_repeats_it() -> None:
    deletions = Deletions()
    deletions.add("a", NOON_NS)
    deletions.add("b", NOON_NS + 10 * SECOND)
    assert [each.id for each in deletions.take_changes(NOON_NS + 10 * SECOND)] == ["a", "b"]
    later_ns = NOON_NS + REPEATED_S * SECOND
    assert deletions.take_changes(later_ns - 1) == []
    assert deletions.take_changes(later_ns) == [Document(DELETION, "a", None)]
    assert list(deletions) == ["b"]


def test_a_store_does_not_grow_with_robots_that_come_and_go(tmp_path: Path) -> None:
    tables = DocumentTables(SqliteDatabase(tmp_path / "registry.sqlite3"), "the fleet")
    tables.open()
    deletions = Deletions()
    for number in range(100):
        now_ns = NOON_NS + number * REPEATED_S * SECOND // 10
        deletions.add(f"d{number}", now_ns)
        tables.write(deletions.take_changes(now_ns))
    tables.close()
    _, documents = tables.open()
    known = Deletions(registered(documents).deletions)
    assert list(known) == [f"d{number}" for number in range(90, 100)]
    tables.close()
