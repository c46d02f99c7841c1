"""A room that meets damage, or silence, when it looks for what it does not hold in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from stores.kept import FLEET, Kept, sqlite_file, sqlite_tables

from actors.broadcaster import Broadcaster
from actors.database import StoreUnreachable
from actors.job_store import JobStoreRoom
from fleet.errors import Unavailable
from fleet.job_record import JobFilter
from fleet.limits import Limits
from fleet.messages import Get, JobSpec, Retry, Submit


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[JobStoreRoom]:
    """It has not yet looked at three finished jobs, of which j2 is damaged."""
    kept = Kept(lambda: sqlite_tables(tmp_path))
    kept.finish(3)
    kept.close()
    connection = sqlite3.connect(sqlite_file(tmp_path))
    connection.execute("UPDATE fleetcast_jobs SET robot_id = 'another' WHERE job_id = 'j2'")
    connection.commit()
    connection.close()
    limits = Limits()
    room = JobStoreRoom(limits, Broadcaster(limits), Broadcaster(limits), f"sqlite:{tmp_path}", FLEET)
    yield room
    await room.close()


async def test_one_damaged_job_is_refused_and_all_others_are_served(room: JobStoreRoom) -> None:
    new = Submit(["k"], [JobSpec(name="weld")])
    first, damaged, submitted, retry, last = await room.execute(
        [Get("j1"), Get("j2"), new, Retry("j2", "again"), Get("j3")]
    )
    assert (first.job_id, last.job_id, submitted[0].job_id) == ("j1", "j3", "k")
    for refusal in (damaged, retry):
        assert (refusal.kind, refusal.code) == ("Unavailable", "store_damaged")
    assert (await room.execute([Get("again")]))[0].kind == "NotFound"


async def test_a_page_with_a_damaged_job_is_refused(room: JobStoreRoom) -> None:
    with pytest.raises(Unavailable, match="damaged"):
        await room.page(JobFilter(), 0, 10)


async def test_while_the_store_does_not_answer_nothing_is_decided_on_what_was_not_read(
    room: JobStoreRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*args: Any) -> None:
        raise StoreUnreachable("it is away")

    with monkeypatch.context() as away:
        away.setattr(room._tables, "find", silent)
        with pytest.raises(Unavailable) as refused:
            await room.execute([Get("j1"), Submit(["k"], [JobSpec(name="weld")])])
    assert refused.value.retry_after_s == 1.0
    [there, not_there] = await room.execute([Get("j1"), Get("k")])
    assert (there.job_id, not_there.kind) == ("j1", "NotFound")
