"""First replies in the three stores: found again, replaced when they have expired, deleted in time."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from stores.kept import Kept, sqlite_file, sqlite_tables

from actors.database import StoreRefused
from actors.job_tables import JobTables
from fleet.job import Job, JobEvent
from fleet.messages import Cancel, JobSpec, Submit


def keyed(kept: Kept, key: str, *job_ids: str, meaning: str = "m") -> list[Job]:
    """As the room does it: what is not in memory is read from the journal first."""
    specs = [JobSpec(name="weld", payload={"of": key})] * len(job_ids)
    command = Submit(list(job_ids), specs, request_id=key, fingerprint=meaning)
    for reply in kept.tables.replies(list(kept.core.unanswered([command]))):
        kept.core.replies.remember(reply)
    for record in kept.tables.find(list(kept.core.forgotten([command]))):
        kept.core.remember(record)
    jobs = kept.core.submit(command, *kept.clock)
    kept.write()
    return jobs


def test_a_reply_is_found_as_it_was_kept(kept: Kept) -> None:
    keyed(kept, "k", "a", "b")
    kept.core.cancel_once(Cancel("a", request_id="c"), *kept.clock)
    [_, cancelled] = kept.write()
    assert kept.tables.replies(["nobody", "c"]) == [cancelled]
    assert kept.tables.replies(["k"])[0].job_ids == ["a", "b"]
    assert kept.tables.replies([]) == []


def test_a_key_gets_its_first_reply_after_a_restart_whatever_became_of_its_jobs(lasting_kept: Kept) -> None:
    kept = lasting_kept
    first = keyed(kept, "k", "a", "b")
    for grant in kept.claim(limit=2):
        kept.report(grant, JobEvent.FAIL, retryable=False)
    kept.reopen()
    assert len(kept.core.replies) == 1
    assert keyed(kept, "k", "c", "d") == first
    assert {job.job_id for job in kept.jobs()} == {"a", "b"}


def test_a_cancel_gets_its_first_reply_after_a_restart(lasting_kept: Kept) -> None:
    kept = lasting_kept
    kept.submit()
    [grant] = kept.claim()
    cancel = Cancel(grant.job.job_id, request_id="c")
    first = kept.core.cancel_once(cancel, *kept.clock)
    kept.report(grant, JobEvent.CANCELLED)
    kept.reopen()
    for reply in kept.tables.replies(["c"]):
        kept.core.replies.remember(reply)
    assert kept.core.cancel_once(cancel, *kept.clock) == first


def test_a_key_that_has_expired_serves_again_before_its_row_is_deleted(lasting_kept: Kept) -> None:
    kept = lasting_kept
    keyed(kept, "k", "a")
    kept.passes(60)
    assert [job.job_id for job in keyed(kept, "k", "b", meaning="other")] == ["b"]
    kept.reopen()
    assert [job.job_id for job in keyed(kept, "k", "c", meaning="other")] == ["b"]


def test_expired_replies_are_deleted_in_bounded_steps(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("job_tables", "memory_tables"):
        monkeypatch.setattr(f"actors.{module}.CLEANED", 2)
    for key in "abc":
        keyed(kept, key, f"j{key}")
    kept.passes(60)
    keyed(kept, "d", "jd")
    kept.passes(1)
    assert kept.tables.clean(kept.wall_ns) == 2
    assert kept.tables.clean(kept.wall_ns) == 1
    assert kept.tables.clean(kept.wall_ns) == 0
    assert [reply.request_id for reply in kept.tables.replies(list("abcd"))] == ["d"]


def test_more_replies_than_a_statement_may_name_are_found(kept: Kept) -> None:
    keyed(kept, "k", "a")
    names = [f"q{n}" for n in range(70_000)]
    assert [reply.request_id for reply in kept.tables.replies([*names, "k"])] == ["k"]


def test_what_expired_does_not_count_after_a_restart(lasting_kept: Kept) -> None:
    kept = lasting_kept
    keyed(kept, "k", "a")
    kept.passes(180)
    kept.reopen()
    keyed(kept, "l", "b")
    assert len(kept.core.replies) == 1


def test_a_reply_that_was_changed_behind_our_back_is_refused(tmp_path: Path) -> None:
    kept = Kept(lambda: sqlite_tables(tmp_path))
    keyed(kept, "k", "a")
    kept.close()
    with sqlite3.connect(sqlite_file(tmp_path)) as changing:
        changing.execute("UPDATE fleetcast_replies SET reply = replace(reply, '\"a\"', '\"b\"')")
    changing.close()
    kept.open()
    assert isinstance(kept.tables, JobTables)
    with pytest.raises(StoreRefused, match="the reply to k"):
        kept.tables.replies(["k"])
    kept.close()
