"""Dead letters in the database of the jobs: an index of their own leads to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from actors.database import Database, Row
from fleet.dead_letters import DeadLetterFilter, DeadLetters, look_through
from fleet.job_record import JobRecord

TURN = 50  # rows that are read at once: each may bring a payload
_NEWEST = 2**62


class DeadLetterRows:
    """`sql` selects whole jobs, `whole` makes records of them."""

    def __init__(self, database: Database, sql: str, whole: Callable[[Row], JobRecord]) -> None:
        self._database = database
        self._sql = sql
        self._whole = whole

    def page(
        self, wanted: DeadLetterFilter, place: int, limit: int, max_bytes: int, newest_first: bool
    ) -> DeadLetters:
        beyond, order = ("<", "DESC") if newest_first else (">", "ASC")
        start = place or (_NEWEST if newest_first else 0)
        found, place = look_through(self._from(start, beyond, order), wanted, limit, max_bytes)
        if not place:
            return DeadLetters(found)
        sql = f"SELECT count(*) FROM fleetcast_jobs WHERE dead_letter = 1 AND seq {beyond} ?"
        [(remaining,)] = self._database.read(sql, (place,))
        return DeadLetters(found, place, remaining)

    def _from(self, place: int, beyond: str, order: str) -> Iterator[JobRecord]:
        sql = f"{self._sql} WHERE j.dead_letter = 1 AND j.seq {beyond} ? ORDER BY j.seq {order} LIMIT {TURN}"
        while rows := [self._whole(row) for row in self._database.read(sql, (place,))]:
            yield from rows
            place = rows[-1].seq
