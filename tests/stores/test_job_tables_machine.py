"""A job store that is closed and opened again at any time, against one that only remembers."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import search_further
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from stores.kept import Kept, pages, sqlite_tables

from actors.memory_tables import MemoryJobTables
from fleet.errors import FleetError
from fleet.job import TERMINAL, JobEvent
from fleet.job_record import Announcement, Fact, JobFilter
from fleet.limits import Limits
from fleet.messages import Granted

LIMITS = Limits(
    heartbeat_interval_ms=300,
    min_lease_ms=1_000,
    cancel_grace_ms=500,
    backoff_base_ms=200,
    backoff_max_ms=700,
    retention_s=3,
    idempotency_s=3,
    max_finished=2,
    max_page_bytes=600,
    max_remembered=8,
)
ROBOTS = ["r0", "r1"]


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.kept = Kept(lambda: sqlite_tables(Path(self.folder.name), LIMITS), LIMITS)
        self.model = MemoryJobTables(LIMITS)
        self.grants: list[tuple[str, Granted]] = []
        self.names: list[str] = []
        self.told: list[str] = []
        self.known = 0  # of what was written, by the model

    def teardown(self) -> None:
        self.kept.close()
        self.folder.cleanup()

    def tell_model(self) -> None:
        self.model.write(self.kept.written[self.known :])
        self.known = len(self.kept.written)

    def live(self) -> list[Any]:
        return [record for record in self.model._records.values() if record.job.status not in TERMINAL]

    @rule(
        count=st.integers(1, 3),
        size=st.sampled_from([0, 10, 400]),
        environment=st.sampled_from([None, "e", "other"]),
        timeout_s=st.sampled_from([None, 0.4]),
        max_attempts=st.integers(1, 2),
    )
    def submit(
        self, count: int, size: int, environment: str | None, timeout_s: float | None, max_attempts: int
    ) -> None:
        payload = {"size": "x" * size} if size else {}
        more = {"environment": environment, "timeout_s": timeout_s, "max_attempts": max_attempts}
        self.names += self.kept.submit(count, payload=payload, **more)

    @rule(robot=st.sampled_from(ROBOTS), limit=st.integers(1, 3))
    def claim(self, robot: str, limit: int) -> None:
        self.grants += [(robot, grant) for grant in self.kept.claim(robot, limit)]

    @rule(
        number=st.integers(0, 50),
        event=st.sampled_from(["start", "start", "complete", "fail", "release", "cancelled", "progress"]),
        result=st.sampled_from([None, "y" * 500]),
    )
    def report(self, number: int, event: str, result: Any) -> None:
        if not self.grants:
            return
        robot, grant = self.grants[number % len(self.grants)]
        self.recall(grant.job.job_id)
        try:
            self.kept.report(grant, JobEvent(event), robot, result=result, error="broke", progress=3.0)
        except FleetError:
            self.kept.write()

    @rule(number=st.integers(0, 50))
    def cancel(self, number: int) -> None:
        if self.names:
            job_id = self.names[number % len(self.names)]
            self.recall(job_id)
            try:
                self.kept.cancel(job_id)
            except FleetError:
                assert not self.kept.tables.find([job_id])

    def recall(self, job_id: str) -> None:
        """As the room does, of what is no longer in memory."""
        for record in self.kept.tables.find([job_id]):
            self.kept.core.remember(record)

    @rule()
    def announce(self) -> None:
        self.told.append(f"a{len(self.told)}")
        self.kept.announce(self.told[-1])

    @rule(seconds=st.sampled_from([0.001, 0.3, 1.2, 3.5]))
    def time_passes(self, seconds: float) -> None:
        self.kept.passes(seconds)
        self.kept.core.tick(*self.kept.clock)
        facts = self.kept.write()
        self.kept.core.trim(facts[-1].number + 1 if facts else 0)

    @rule()
    def clean(self) -> None:
        self.tell_model()
        assert self.kept.tables.clean(self.kept.wall_ns) == self.model.clean(self.kept.wall_ns)

    @rule(
        status=st.sampled_from([None, "pending", "completed", "failed"]),
        robot_id=st.sampled_from([None, *ROBOTS]),
        environment=st.sampled_from([None, "e"]),
        limit=st.integers(1, 4),
    )
    def look(self, limit: int, **wanted: Any) -> None:
        self.tell_model()
        asked = JobFilter(**wanted)
        assert pages(self.kept.tables, asked, limit) == pages(self.model, asked, limit)

    @rule()
    def reopen(self) -> None:
        self.tell_model()
        kept, former = self.kept, dict(self.kept.opening.former)
        number = self.kept.tables._counters.number
        name = kept.opening.incarnation
        kept.reopen()
        rest = kept.rest
        assert rest.records == self.live()
        last = next(reversed(kept.written), None)
        if last is not None:
            part = last.part if isinstance(last, Fact) else 0
            assert (rest.number, rest.part) == (last.number + 1, part)
        assert rest.seq == len(self.names) + 1
        assert kept.opening.former == former | {name: number}
        told = [fact.announcement_id for fact in kept.written if isinstance(fact, Announcement)]
        assert rest.announcement_ids == told[-LIMITS.max_remembered :]

    @invariant()
    def what_is_stored_is_what_was_written(self) -> None:
        self.tell_model()
        assert pages(self.kept.tables) == pages(self.model)
        jobs = [record.job.job_id for record in self.model._records.values()]
        assert sorted(self.kept.tables.find(jobs), key=lambda record: record.seq) == self.model.find(jobs)
        assert [self.kept.tables.history(name) for name in jobs] == [self.model.history(n) for n in jobs]


TestAStoreIsWhatWasWritten = StoreMachine.TestCase
TestAStoreIsWhatWasWritten.settings = settings(max_examples=20, stateful_step_count=30)


@pytest.mark.long
def test_a_store_is_what_was_written_on_many_more_examples() -> None:
    search_further(StoreMachine)
