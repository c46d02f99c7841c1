"""Jobs and their events in a database: one row a job, one row an event, written in one transaction.

The rows of the jobs are the snapshot and the events are the log: there is nothing to replay. A start reads
the jobs that are not finished, and the newest events for the live-jobs feed.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from actors import failpoints, reply_tables
from actors.database import Database, Row, Table
from actors.dead_letter_tables import DeadLetterRows
from actors.writer import UNREADABLE, Counters, Opening, Writer, damaged
from fleet.dead_letters import DeadLetterFilter, DeadLetters, is_dead_letter
from fleet.errors import FleetError
from fleet.events import JobStatusChanged, encode
from fleet.job import TERMINAL, Job, JobEvent, JobStatus
from fleet.job_record import (
    Announcement,
    Fact,
    HistoryEvent,
    JobFilter,
    JobRecord,
    JobsAtRest,
    history_event,
    with_payload,
    without_payload,
)
from fleet.job_store import Change
from fleet.kept_replies import KeptReply
from fleet.limits import SECOND, Limits
from fleet.wall_time import NS_PER_DAY, wall_ns_of

MIGRATIONS = (
    (
        "CREATE TABLE fleetcast_jobs (seq {id} PRIMARY KEY, job_id {text} NOT NULL UNIQUE, "
        "status {text} NOT NULL, robot_id {text}, environment {text}, dead_letter {int} NOT NULL, "
        "finished_ns {int}, check_sum {int} NOT NULL, record {bytes} NOT NULL)",
        "CREATE INDEX fleetcast_jobs_live ON fleetcast_jobs (seq) WHERE finished_ns IS NULL",
        "CREATE INDEX fleetcast_jobs_finished ON fleetcast_jobs (finished_ns) WHERE finished_ns IS NOT NULL",
        "CREATE INDEX fleetcast_jobs_dead ON fleetcast_jobs (seq) WHERE dead_letter = 1",
        "CREATE TABLE fleetcast_payloads (seq {id} PRIMARY KEY, payload_sum {int} NOT NULL, "
        "payload {bytes} NOT NULL)",
        "CREATE TABLE fleetcast_events (number {int} NOT NULL, part {int} NOT NULL, seq {int}, "
        "check_sum {int} NOT NULL, event {bytes} NOT NULL, PRIMARY KEY (number, part))",
        "CREATE INDEX fleetcast_events_of_job ON fleetcast_events (seq) WHERE seq IS NOT NULL",
        "CREATE INDEX fleetcast_events_told ON fleetcast_events (number) WHERE seq IS NULL",
    ),
    reply_tables.MIGRATION,
)
JOBS = Table(
    "fleetcast_jobs",
    {
        "seq": "int",
        "job_id": "text",
        "status": "text",
        "robot_id": "text",
        "environment": "text",
        "dead_letter": "int",
        "finished_ns": "int",
        "check_sum": "int",
        "record": "bytes",
    },
)
PAYLOADS = Table("fleetcast_payloads", {"seq": "int", "payload_sum": "int", "payload": "bytes"})
EVENTS = Table(
    "fleetcast_events",
    {"number": "int", "part": "int", "seq": "int", "check_sum": "int", "event": "bytes"},
    keys=2,
)
LOOKED_AT = 5_000  # jobs that one page goes through at most
CLEANED = 1_000  # jobs that one transaction deletes at most
ASKED = 1_000  # ids that one statement asks for at most
_JOINED = "FROM fleetcast_jobs j LEFT JOIN fleetcast_payloads p ON p.seq = j.seq"
_WHOLE = f"SELECT {', '.join(f'j.{name}' for name in JOBS.columns)}, p.payload, p.payload_sum {_JOINED}"

_record = msgspec.json.Decoder(JobRecord).decode
_event = msgspec.json.Decoder(HistoryEvent).decode
_payload = msgspec.json.Decoder(dict[str, Any]).decode


class Told(msgspec.Struct, frozen=True):
    """An announcement as it is kept among the events."""

    announcement_id: str
    job_id: str
    status: JobStatus
    at: str


_told = msgspec.json.Decoder(Told).decode


class JobTables:
    """The store behind the job store's journal. `now_ns` is the reading of that actor's clock."""

    blocking = True

    def __init__(
        self, database: Database, fleet: str, limits: Limits, now_ns: Callable[[], int] = lambda: 0
    ) -> None:
        self._database = database
        self._limits = limits
        self._writer = Writer(database, "jobs", fleet, MIGRATIONS)
        self._counters = Counters()
        self._recent: list[bytes] = []
        self._dead_letters = DeadLetterRows(database, _WHOLE, self._whole)
        self.now_ns = now_ns

    # -- opening

    def open(self, wall_ns: int) -> tuple[Opening, JobsAtRest]:
        """Takes the writer's place. Raises StoreRefused, or StoreUnreachable."""

        def read(opening: Opening) -> tuple[Opening, JobsAtRest]:
            self._counters = opening.counters
            self._recent = self._recent_events()
            return opening, self._at_rest(wall_ns)

        return self._writer.open(read)

    def _at_rest(self, wall_ns: int) -> JobsAtRest:
        counters = self._counters
        rows = self._database.query(f"{_WHOLE} WHERE j.finished_ns IS NULL ORDER BY j.seq")
        midnight = wall_ns - wall_ns % NS_PER_DAY
        today: dict[str, int] = dict(
            self._database.query(
                "SELECT status, count(*) FROM fleetcast_jobs WHERE finished_ns >= ? GROUP BY status",
                (midnight,),
            )
        )
        told = self._database.query(
            "SELECT number, check_sum, event FROM fleetcast_events WHERE seq IS NULL "
            "ORDER BY number DESC LIMIT ?",
            (self._limits.max_remembered,),
        )
        newest = self._database.query(
            "SELECT job_id FROM fleetcast_jobs ORDER BY seq DESC LIMIT ?", (self._limits.max_remembered,)
        )
        if len(rows) != counters.live:
            raise damaged(self._database, f"the number of jobs to be done ({len(rows)} of {counters.live})")
        return JobsAtRest(
            [self._whole(row) for row in rows],
            counters.number,
            counters.part,
            counters.seq,
            [_told(self._event(*row)).announcement_id for row in reversed(told)],
            [job_id for (job_id,) in reversed(newest)],
            today.get(JobStatus.COMPLETED, 0),
            today.get(JobStatus.FAILED, 0),
            reply_tables.expiring(self._database),
        )

    def recent_events(self) -> list[bytes]:
        """The newest messages of the live-jobs feed at the opening, without a hole, up to the last; as many
        as it holds. Once: they are not kept here."""
        recent, self._recent = self._recent, []
        return recent

    def _recent_events(self) -> list[bytes]:
        limits, number = self._limits, self._counters.number
        rows = self._database.query(
            "SELECT e.number, e.check_sum, e.event, e.seq, j.job_id FROM fleetcast_events e "
            "LEFT JOIN fleetcast_jobs j ON j.seq = e.seq WHERE e.part = 0 AND e.number >= ? "
            "ORDER BY e.number DESC",
            (number - limits.feed_events,),
        )
        found: list[bytes] = []
        size = 0
        for expected, row in zip(range(number - 1, -1, -1), rows, strict=False):
            number, check_sum, data, seq, job_id = row
            message = _message(self._event(number, check_sum, data), seq, job_id)
            size += len(message or b"")
            if number != expected or message is None or size > limits.feed_bytes:
                break
            found.append(message)
        return found[::-1]

    def _whole(self, row: Row) -> JobRecord:
        """Raises StoreRefused for a row that is not what was written."""
        *columns, check_sum, data, payload, payload_sum = row
        with contextlib.suppress(*UNREADABLE, FleetError):
            intact = payload is None or zlib.crc32(payload) == payload_sum
            if intact and zlib.crc32(data) == check_sum:
                record = _record(data)
                if _columns(record) == tuple(columns):
                    return record if payload is None else with_payload(record, _payload(payload))
        raise damaged(self._database, f"job number {columns[0]}")

    def _event(self, number: int, check_sum: int, data: bytes) -> bytes:
        with contextlib.suppress(*UNREADABLE):
            if zlib.crc32(data) == check_sum:
                return data
        raise damaged(self._database, f"event number {number}")

    # -- writing

    def write(self, changes: Sequence[Change]) -> None:
        replies = [change for change in changes if isinstance(change, KeptReply)]
        records = [change for change in changes if not isinstance(change, KeptReply)]
        facts = [record for record in records if isinstance(record, Fact)]
        newest = {fact.record.seq: fact.record for fact in facts}
        finished = set(newest) - {fact.record.seq for fact in facts if fact.announced or _lives(fact)}
        counters = self._count(records)

        def work() -> None:
            """A row is made when the statement before it is on its way."""
            gone = self._gone(finished)
            jobs = [_job_row(record) for seq, record in newest.items() if seq not in gone]
            self._database.upsert(JOBS, jobs)
            self._database.insert(
                PAYLOADS, [_payload_row(fact.record) for fact in facts if _brings_a_payload(fact)]
            )
            events = (_event_row(record) for record in records if _tells(record))
            self._database.insert(EVENTS, [row for row in events if row[2] not in gone])
            reply_tables.write(self._database, replies)

        self._writer.commit(work, counters)
        self._counters = counters

    def _gone(self, seqs: set[int]) -> set[int]:
        """Jobs that finished long ago, of which something is told although retention has deleted them."""
        asked, gone = list(seqs), set(seqs)
        for start in range(0, len(asked), ASKED):
            some = asked[start : start + ASKED]
            marks = ", ".join("?" * len(some))
            kept = self._database.query(f"SELECT seq FROM fleetcast_jobs WHERE seq IN ({marks})", some)
            gone.difference_update(seq for (seq,) in kept)
        return gone

    def _count(self, records: Sequence[Fact | Announcement]) -> Counters:
        """Where the counters stand after these."""
        now = self._counters
        number, part, seq, live = now.number, now.part, now.seq, now.live
        for record in records:
            number, part = record.number + 1, 0
            if isinstance(record, Fact):
                part = record.part
                seq = max(seq, record.record.seq + 1)
                live += (record.event is JobEvent.SUBMIT) - _ends(record)
        return Counters(number, part, seq, live, self.now_ns())

    def note_clock(self) -> None:
        """For a store that has nothing to write, so that a restart does not set back its timeouts."""
        self._writer.commit(lambda: None, self._count(()))

    def clean(self, wall_ns: int) -> int:
        """Deletes up to `CLEANED` jobs, and their events, that finished `retention_s` ago, and so many
        replies that expired; returns how many of either. Announcements stay as long as a feed could hold
        them."""
        limits, number = self._limits, self._counters.number
        before_ns = wall_ns - limits.retention_s * SECOND
        old = (
            "(SELECT seq FROM fleetcast_jobs WHERE finished_ns < ? "
            f"ORDER BY finished_ns, seq LIMIT {CLEANED})"
        )
        deleted = expired = 0

        def work() -> None:
            nonlocal deleted, expired
            for table in ("fleetcast_events", "fleetcast_payloads", "fleetcast_jobs"):
                deleted = self._database.execute(f"DELETE FROM {table} WHERE seq IN {old}", (before_ns,))
                failpoints.hit(failpoints.IN_SNAPSHOT)
            expired = reply_tables.delete_expired(self._database, wall_ns, CLEANED)
            self._database.execute(
                "DELETE FROM fleetcast_events WHERE seq IS NULL AND number < ?",
                (number - max(limits.feed_events, limits.max_remembered),),
            )

        self._writer.commit(work, self._count(()))
        return max(deleted, expired)

    def compact(self) -> bool:
        return self._database.compact()

    def begin_log(self) -> None:
        self._database.begin_log()

    # -- reading, in any thread

    def find(self, job_ids: Sequence[str]) -> list[JobRecord]:
        return self._records("job_id", job_ids)

    def _records(self, column: str, keys: Sequence[Any]) -> list[JobRecord]:
        found: list[Row] = []
        for start in range(0, len(keys), ASKED):
            some = keys[start : start + ASKED]
            marks = ", ".join("?" * len(some))
            found += self._database.read(f"{_WHOLE} WHERE j.{column} IN ({marks})", some)
        return [self._whole(row) for row in found]

    def replies(self, request_ids: Sequence[str]) -> list[KeptReply]:
        return reply_tables.find(self._database, request_ids)

    def dead_letters(
        self, wanted: DeadLetterFilter, place: int, limit: int, max_bytes: int, newest_first: bool
    ) -> DeadLetters:
        return self._dead_letters.page(wanted, place, limit, max_bytes, newest_first)

    def page(self, wanted: JobFilter, before: int, limit: int) -> tuple[list[Job], int]:
        """Newest first, from below submission number `before` (0: from the newest). The second value is the
        `before` of the next page, 0 at the end. Looks at `LOOKED_AT` jobs and takes `max_page_bytes` at most,
        so that no caller holds up the others: a page may be short, or empty, and yet not be the last."""
        [(oldest, newest)] = self._database.read("SELECT min(seq), max(seq) FROM fleetcast_jobs")
        if newest is None:
            return [], 0
        before = min(before, newest + 1) if before else newest + 1
        floor = max(oldest, before - LOOKED_AT)
        where, args = _where(wanted)
        sizes = f"SELECT j.seq, length(j.record) + coalesce(length(p.payload), 0) {_JOINED}"
        sql = f"{sizes} WHERE j.seq < ? AND j.seq >= ?{where} ORDER BY j.seq DESC LIMIT ?"
        found = self._database.read(sql, (before, floor, *args, limit))
        taken = list(_up_to(found, self._limits.max_page_bytes))
        short = len(taken) < len(found) or len(taken) == limit
        following = taken[-1] if short and taken else floor
        records = sorted(self._records("seq", taken), key=lambda record: -record.seq)
        return [record.job for record in records], following if following > oldest else 0

    def history(self, job_id: str, skip: int = 0, limit: int = 1_000) -> list[HistoryEvent]:
        rows = self._database.read(
            "SELECT e.number, e.check_sum, e.event FROM fleetcast_events e "
            "JOIN fleetcast_jobs j ON j.seq = e.seq WHERE j.job_id = ? "
            "ORDER BY e.number, e.part LIMIT ? OFFSET ?",
            (job_id, limit, skip),
        )
        return [_event(self._event(*row)) for row in rows]

    def close(self) -> None:
        self._database.close()


def _where(wanted: JobFilter) -> tuple[str, list[Any]]:
    columns = {
        "status": wanted.status,
        "robot_id": wanted.robot_id,
        "environment": wanted.environment,
    }
    asked = {name: value for name, value in columns.items() if value is not None}
    return "".join(f" AND j.{name} = ?" for name in asked), list(asked.values())


def _up_to(sizes: Iterable[Row], max_bytes: int) -> Iterator[int]:
    total = 0
    for seq, size in sizes:
        if total >= max_bytes:
            return
        total += size
        yield seq


def _lives(fact: Fact) -> bool:
    return fact.job.status not in TERMINAL


def _ends(fact: Fact) -> bool:
    return fact.announced and not _lives(fact)


def _brings_a_payload(fact: Fact) -> bool:
    return fact.event is JobEvent.SUBMIT and bool(fact.job.payload)


def _tells(record: Fact | Announcement) -> bool:
    return isinstance(record, Announcement) or record.recorded


def _payload_row(record: JobRecord) -> Row:
    data = encode(record.job.payload)
    return record.seq, zlib.crc32(data), data


def _job_row(record: JobRecord) -> Row:
    data = encode(without_payload(record))
    return *_columns(record), zlib.crc32(data), data


def _columns(record: JobRecord) -> Row:
    """What can be asked for."""
    job = record.job
    return (
        record.seq,
        job.job_id,
        job.status.value,
        job.robot_id,
        job.environment,
        int(is_dead_letter(job)),
        wall_ns_of(job.finished_at or "") if job.status in TERMINAL else None,
    )


def _event_row(record: Fact | Announcement) -> Row:
    if isinstance(record, Announcement):
        told = encode(Told(record.announcement_id, record.job_id, record.status, record.at))
        return record.number, 0, None, zlib.crc32(told), told
    data = encode(history_event(record))
    return record.number, record.part, record.record.seq, zlib.crc32(data), data


def _message(data: bytes, seq: int | None, job_id: str | None) -> bytes | None:
    """The event as watchers got it; None if its job is gone."""
    if seq is None:
        told = _told(data)
        return encode(JobStatusChanged(told.job_id, told.status, told.at))
    kept = _event(data)
    return None if job_id is None else encode(JobStatusChanged(job_id, kept.status, kept.at))
