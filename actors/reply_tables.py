"""First replies in the database of the jobs: one row a request, in the transaction of what it changed."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence

import msgspec

from actors.database import Database, Row, Table
from actors.writer import UNREADABLE, damaged
from fleet.events import encode
from fleet.kept_replies import MINUTE, KeptReply

MIGRATION = (
    "CREATE TABLE fleetcast_replies (request_id {text} PRIMARY KEY, expires_ns {int} NOT NULL, "
    "check_sum {int} NOT NULL, reply {bytes} NOT NULL)",
    "CREATE INDEX fleetcast_replies_expiring ON fleetcast_replies (expires_ns)",
)
REPLIES = Table(
    "fleetcast_replies", {"request_id": "text", "expires_ns": "int", "check_sum": "int", "reply": "bytes"}
)

ASKED = 1_000  # ids that one statement asks for at most

_reply = msgspec.json.Decoder(KeptReply).decode


def write(database: Database, replies: Sequence[KeptReply]) -> None:
    """One that has expired is replaced by another of the same request id."""
    newest = {kept.request_id: kept for kept in replies}
    rows = [(kept.request_id, kept.expires_wall_ns, encode(kept)) for kept in newest.values()]
    database.upsert(REPLIES, [(name, expires, zlib.crc32(data), data) for name, expires, data in rows])


def expiring(database: Database) -> dict[int, int]:
    """How many expire, by the minute since 1970."""
    sql = f"SELECT expires_ns / {MINUTE}, count(*) FROM fleetcast_replies GROUP BY 1"
    return {int(minute): int(count) for minute, count in database.query(sql)}


def find(database: Database, request_ids: Sequence[str]) -> list[KeptReply]:
    """What was committed, expired or not."""
    found: list[Row] = []
    for start in range(0, len(request_ids), ASKED):
        some = request_ids[start : start + ASKED]
        marks = ", ".join("?" * len(some))
        sql = f"SELECT request_id, check_sum, reply FROM fleetcast_replies WHERE request_id IN ({marks})"
        found += database.read(sql, some)
    return [_whole(database, *row) for row in found]


def _whole(database: Database, request_id: str, check_sum: int, data: bytes) -> KeptReply:
    with contextlib.suppress(*UNREADABLE):
        if zlib.crc32(data) == check_sum:
            return _reply(data)
    raise damaged(database, f"the reply to {request_id}")


def delete_expired(database: Database, wall_ns: int, limit: int) -> int:
    """Returns how many."""
    some = f"SELECT request_id FROM fleetcast_replies WHERE expires_ns < ? ORDER BY expires_ns LIMIT {limit}"
    return database.execute(f"DELETE FROM fleetcast_replies WHERE request_id IN ({some})", (wall_ns,))
