"""What every store of jobs does, in memory, in a SQLite file and in PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET
from msgspec.structs import replace
from stores.kept import LIMITS, Kept, pages, sqlite_tables, tables_of

from fleet.job import JobEvent, JobStatus
from fleet.job_record import JobFilter
from fleet.limits import SECOND
from fleet.messages import Beats, JobToken, Retry
from fleet.wall_time import rfc3339

WEIRD = {"quote": "' OR 1=1 --", "like": "%_\\", "nul": "\x00", "deep": [[{"é": [1e300, -0.0, None]}]]}


def test_a_job_is_found_as_it_was_decided(kept: Kept) -> None:
    [name] = kept.submit(payload=WEIRD, priority=3, required_capabilities=["arm"], timeout_s=1.5)
    [record] = kept.tables.find([name])
    assert record == kept.written[-1].record
    assert record.job == kept.core.get(name)
    assert record.job.payload == WEIRD


def test_a_job_is_found_as_it_last_was_with_the_payload_of_its_submission(kept: Kept) -> None:
    kept.submit(payload=WEIRD)
    [grant] = kept.claim()
    kept.report(grant, JobEvent.START)
    kept.report(grant, JobEvent.COMPLETE, result=[WEIRD])
    [record] = kept.tables.find([grant.job.job_id])
    assert (record.job.status, record.job.payload, record.job.result) == ("completed", WEIRD, [WEIRD])


def test_who_asks_for_more_jobs_than_a_statement_may_name_gets_them_all(kept: Kept) -> None:
    names = kept.submit(3)
    asked = [f"nobody-{n}" for n in range(70_000)]
    found = kept.tables.find([names[0], *asked, *names[1:]])
    assert [record.job.job_id for record in found] == names


def test_the_history_tells_every_change_in_order(kept: Kept) -> None:
    kept.submit()
    [grant] = kept.claim("r")
    kept.report(grant, JobEvent.PROGRESS, progress=40.0, current_node="door", message="half way")
    kept.report(grant, JobEvent.START)
    kept.report(grant, JobEvent.FAIL, error="jammed", retryable=False)
    history = kept.tables.history(grant.job.job_id)
    told = [(line.event, line.status, line.attempt, line.robot_id, line.error) for line in history]
    assert told == [
        ("submit", "pending", 0, UNSET, UNSET),
        ("claim", "claimed", 1, "r", UNSET),
        ("progress", "claimed", 1, "r", UNSET),
        ("start", "running", 1, "r", UNSET),
        ("fail", "failed", 1, "r", "jammed"),
    ]
    assert (history[2].progress, history[2].current_node, history[2].message) == (40.0, "door", "half way")
    assert kept.tables.history("nobody") == []


def test_pages_show_every_job_once_the_newest_first(kept: Kept) -> None:
    names = kept.submit(7)
    assert [job.job_id for job in pages(kept.tables, limit=3)] == names[::-1]
    assert [job.job_id for job in pages(kept.tables, limit=7)] == names[::-1]


def test_a_page_of_nothing_is_the_last(kept: Kept) -> None:
    assert kept.tables.page(JobFilter(), 0, 10) == ([], 0)
    kept.submit(2)
    assert kept.tables.page(JobFilter(), 1, 10) == ([], 0)
    assert len(kept.tables.page(JobFilter(), 10**12, 10)[0]) == 2


def test_jobs_that_come_and_go_between_pages_are_neither_doubled_nor_hide_others(kept: Kept) -> None:
    old = kept.finish(4)
    kept.passes(LIMITS.retention_s + 1)
    new = kept.submit(3)
    first, before = kept.tables.page(JobFilter(), 0, 2)
    kept.submit(2)
    kept.tables.clean(kept.wall_ns)
    second, before = kept.tables.page(JobFilter(), before, 5)
    assert [job.job_id for job in first + second] == new[::-1]
    assert before == 0
    assert kept.tables.find(old) == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (JobFilter(status="completed"), [1]),
        (JobFilter(status="failed"), [2]),
        (JobFilter(status="claimed"), [3]),
        (JobFilter(robot_id="r2"), [3]),
        (JobFilter(environment="lab"), [4]),
        (JobFilter(status="completed", robot_id="r"), [1]),
        (JobFilter(status="failed", robot_id="r2"), []),
        (JobFilter(robot_id="' OR 1=1 --"), []),
        (JobFilter(status="%"), []),
    ],
)
def test_a_filter_admits_what_it_names(kept: Kept, wanted: JobFilter, expected: list[int]) -> None:
    kept.finish()
    kept.submit()
    [grant] = kept.claim()
    kept.report(grant, JobEvent.FAIL, retryable=False)
    kept.submit()
    kept.claim("r2")
    kept.submit(environment="lab")
    numbers = [int(job.created_at and record_seq(kept, job.job_id)) for job in pages(kept.tables, wanted)]
    assert numbers == expected


def record_seq(kept: Kept, job_id: str) -> int:
    return int(kept.tables.find([job_id])[0].seq)


def test_a_page_that_finds_little_ends_early_and_the_next_goes_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("job_tables", "memory_tables"):
        monkeypatch.setattr(f"actors.{module}.LOOKED_AT", 5)
    [first] = kept.submit(environment="lab")
    kept.submit(11)
    looks, found, before = 0, [], 0
    while before or not looks:
        page, before = kept.tables.page(JobFilter(environment="lab"), before, 10)
        found, looks = found + page, looks + 1
    assert [job.job_id for job in found] == [first]
    assert looks == 3


@pytest.mark.parametrize("part", ["payload", "result"])
def test_a_page_takes_no_more_than_its_bytes_and_one_job(kept: Kept, part: str) -> None:
    big = {part: {"big": "x" * (LIMITS.max_page_bytes * 2 // 5)}}
    if part == "payload":
        kept.submit(6, **big)
    else:
        for _ in range(6):
            kept.finish(**big)
    page, before = kept.tables.page(JobFilter(), 0, 6)
    assert 1 < len(page) <= 3
    assert before
    assert [record_seq(kept, job.job_id) for job in pages(kept.tables, limit=6)] == [6, 5, 4, 3, 2, 1]


def test_a_job_larger_than_a_page_is_a_page(kept: Kept) -> None:
    names = kept.submit(2, payload={"big": "x" * 2 * LIMITS.max_page_bytes})
    page, before = kept.tables.page(JobFilter(), 0, 2)
    assert [job.job_id for job in page] == names[1:]
    assert [job.job_id for job in kept.tables.page(JobFilter(), before, 2)[0]] == names[:1]


def test_retention_deletes_jobs_that_finished_long_ago_and_all_of_them(kept: Kept) -> None:
    gone = kept.finish(3)
    alive = kept.submit(2)
    kept.passes(LIMITS.retention_s + 1)
    kept.tables.clean(kept.wall_ns - 2 * 10**9)
    assert {job.job_id for job in kept.jobs()} == {*alive, *gone}
    fresh = kept.finish()
    assert kept.tables.clean(kept.wall_ns) == 3
    assert {job.job_id for job in kept.jobs()} > {*fresh}
    assert len(kept.jobs()) == 3
    assert [kept.tables.history(name) for name in gone] == [[], [], []]
    assert kept.tables.clean(kept.wall_ns) == 0


def test_retention_goes_in_bounded_steps_the_oldest_first(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("job_tables", "memory_tables"):
        monkeypatch.setattr(f"actors.{module}.CLEANED", 2)
    old = kept.finish()
    kept.passes(1)
    kept.finish(2)
    kept.passes(LIMITS.retention_s + 1)
    assert kept.tables.clean(kept.wall_ns) == 2
    assert kept.tables.find(old) == []
    assert kept.tables.clean(kept.wall_ns) == 1


def test_a_job_that_was_deleted_does_not_come_back_by_what_is_told_of_it_afterwards(kept: Kept) -> None:
    kept.submit()
    [grant] = kept.claim()
    kept.report(grant, JobEvent.FAIL, retryable=False)
    kept.passes(LIMITS.retention_s + 1)
    kept.core.retry(Retry(grant.job.job_id, "again"), *kept.clock)
    kept.tables.clean(kept.wall_ns)
    kept.write()
    assert [job.job_id for job in kept.jobs()] == ["again"]
    assert kept.tables.history(grant.job.job_id) == []
    assert kept.jobs()[0].retry_of == grant.job.job_id


@pytest.mark.parametrize("odd", ["\0", "\0j1", "j" * 9_000, "' OR 1=1 --", "%", "\ud7ff"])
def test_names_that_no_job_can_have_are_found_nowhere_and_hide_no_other(kept: Kept, odd: str) -> None:
    [name] = kept.submit()
    assert [record.job.job_id for record in kept.tables.find([odd, name])] == [name]
    assert kept.tables.replies([odd]) == []
    assert kept.tables.history(odd) == []
    for wanted in (JobFilter(robot_id=odd), JobFilter(environment=odd), JobFilter(status=odd)):
        assert kept.tables.page(wanted, 0, 10)[0] == []


def test_any_number_of_jobs_may_be_retried_in_one_transaction(tmp_path: Path) -> None:
    """Though no database takes any number of values in a statement."""
    kept = Kept(lambda: sqlite_tables(tmp_path))
    kept.tables._database._writer.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 1_000)
    names = kept.submit(1_500)
    for name in names:
        kept.core.cancel(name, *kept.clock)
    kept.write()
    for name in names:
        kept.core.retry(Retry(name, f"again-{name}"), *kept.clock)
    kept.write()
    assert kept.tables.find(names[-1:])[0].job.retried_by == f"again-{names[-1]}"
    kept.close()


# -- what survives


def test_nothing_is_there_at_first(kept: Kept) -> None:
    assert (kept.rest.records, kept.rest.number, kept.rest.seq) == ([], 0, 1)
    assert kept.tables.recent_events() == []


def test_what_was_written_is_found_again(lasting_kept: Kept) -> None:
    kept = lasting_kept
    kept.finish(2, result=WEIRD)
    kept.submit(2, payload=WEIRD)
    [grant, _] = kept.claim(limit=2)
    kept.report(grant, JobEvent.START)
    before, core = kept.everything(), kept.core
    kept.reopen()
    assert kept.everything() == before
    assert [record.job.job_id for record in kept.rest.records] == [job.job_id for job in before[0][1::-1]]
    assert all(
        kept.core.get(record.job.job_id) == core.get(record.job.job_id) for record in kept.rest.records
    )


def test_a_token_is_good_after_a_restart_and_an_older_one_is_not(lasting_kept: Kept) -> None:
    kept = lasting_kept
    kept.submit()
    [old] = kept.claim("r1")
    kept.report(old, JobEvent.RELEASE, "r1")
    [grant] = kept.claim("r2")
    kept.reopen()
    with pytest.raises(Exception, match="not its newest grant"):
        kept.report(old, JobEvent.START, "r1")
    assert kept.report(grant, JobEvent.START, "r2").status is JobStatus.RUNNING
    kept.reopen()
    assert kept.report(grant, JobEvent.COMPLETE, "r2").status is JobStatus.COMPLETED


def test_the_newest_claim_of_a_robot_gets_its_first_answer_again_though_two_came_at_once(
    lasting_kept: Kept,
) -> None:
    kept = lasting_kept
    [later] = kept.submit(priority=20)
    kept.submit(priority=0)
    kept.claim(request_id="older")
    kept.claim(request_id="newer")
    kept.submit()
    kept.reopen()
    assert [grant.job.job_id for grant in kept.claim(request_id="newer")] == [later]


def test_counters_go_on_where_they_were(lasting_kept: Kept) -> None:
    kept = lasting_kept
    kept.submit()
    [grant] = kept.claim()
    kept.report(grant, JobEvent.PROGRESS, progress=1.0)
    last = kept.written[-1]
    kept.passes(5)
    kept.reopen()
    assert (last.number, last.part) == (1, 1)
    kept.report(grant, JobEvent.PROGRESS, progress=2.0)
    kept.submit()
    kept.announce("a")
    progress, submit, announcement = kept.written[-3:]
    assert [(progress.number, progress.part), (submit.number, submit.part)] == [(1, 2), (2, 0)]
    assert (announcement.number, submit.record.seq) == (3, 2)
    kept.finish()
    kept.passes(LIMITS.retention_s + 1)
    kept.tables.clean(kept.wall_ns)
    kept.reopen()
    kept.submit()
    assert kept.written[-1].record.seq == 4  # though the newest was deleted


def test_what_is_counted_of_today_survives_and_yesterday_does_not(lasting_kept: Kept) -> None:
    kept = lasting_kept
    kept.finish(2)
    kept.submit()
    [grant] = kept.claim()
    kept.report(grant, JobEvent.FAIL, retryable=False)
    kept.reopen()
    assert (kept.rest.completed_today, kept.rest.failed_today) == (2, 1)
    kept.passes(86_400)
    kept.reopen()
    assert (kept.rest.completed_today, kept.rest.failed_today) == (0, 0)


def test_announcements_and_submissions_are_known_again_when_they_are_repeated(lasting_kept: Kept) -> None:
    kept = lasting_kept
    [name] = kept.finish()
    kept.announce("a")
    kept.reopen()
    assert (kept.rest.announcement_ids, kept.rest.job_ids) == (["a"], [name])
    count = len(kept.written)
    kept.announce("a")
    assert len(kept.written) == count


def test_of_announcements_and_submissions_the_newest_are_known(lasting_kept: Kept) -> None:
    kept = lasting_kept
    names = kept.submit(LIMITS.max_remembered + 5)
    for number in range(LIMITS.max_remembered + 5):
        kept.announce(f"a{number}")
    kept.reopen()
    assert kept.rest.job_ids == names[5:]
    assert kept.rest.announcement_ids == [f"a{n}" for n in range(5, LIMITS.max_remembered + 5)]


def test_what_a_new_watcher_hears_of_the_jobs_is_the_same_after_a_restart(lasting_kept: Kept) -> None:
    """One that came back to the queue did so when it did, though it was submitted long before."""
    kept = lasting_kept
    kept.submit(2)
    for _ in range(3):
        [grant] = kept.claim()
        kept.passes(3)
        kept.report(grant, JobEvent.START)
        kept.passes(3)
        kept.report(grant, JobEvent.RELEASE)
        kept.passes(3)
    kept.claim()
    before = kept.core.latest(10)
    kept.reopen()
    assert kept.core.latest(10) == before


def test_progress_whose_answer_a_restart_took_is_in_the_history_once(lasting_kept: Kept) -> None:
    kept = lasting_kept
    [name] = kept.submit()
    [grant] = kept.claim()
    kept.report(grant, JobEvent.PROGRESS, progress=40.0, message="half way")
    kept.reopen()
    kept.report(grant, JobEvent.PROGRESS, progress=40.0, message="half way")
    assert [line.event for line in kept.tables.history(name)] == ["submit", "claim", "progress"]


def passes(kept: Kept, seconds: float) -> None:
    kept.passes(seconds)
    kept.core.tick(*kept.clock)
    kept.write()


def test_a_lease_that_heartbeats_made_longer_is_so_after_a_restart(lasting_kept: Kept) -> None:
    """The robot was told to beat more slowly since, and goes on doing so."""
    kept = lasting_kept
    [name] = kept.submit()
    [grant] = kept.claim()
    kept.core.beats(Beats("r", [JobToken(name, grant.token)], 100_000), kept.now_ns)
    kept.report(grant, JobEvent.START)
    passes(kept, 90)
    kept.reopen()
    passes(kept, 99)
    assert kept.core.get(name).status == "running"
    passes(kept, 1)
    assert kept.core.get(name).status == "pending"
    assert [line.event for line in kept.tables.history(name)] == ["submit", "claim", "start", "lease_expired"]


@pytest.mark.parametrize("due_s", [5, 8])
def test_the_time_in_which_a_job_must_be_taken_goes_on_after_a_restart(
    lasting_kept: Kept, due_s: int
) -> None:
    """Also of one that became due without any other change, or while the store was closed."""
    kept = lasting_kept
    [name] = kept.submit(pending_timeout_s=10, not_before=rfc3339(kept.wall_ns + due_s * SECOND))
    passes(kept, 5)
    for _ in range(3):
        kept.passes(1)
        kept.reopen()
        kept.write()
    passes(kept, due_s + 10 - 8 - 1)
    kept.reopen()
    assert kept.core.get(name).status == "pending"
    passes(kept, 1)
    assert (kept.core.get(name).status, kept.core.get(name).error) == ("failed", "expired")


def told(events: list[bytes]) -> list[tuple[str, str]]:
    return [(event["job_id"], event["status"]) for event in map(json.loads, events)]


def test_the_newest_events_come_back_as_they_were_told(lasting_kept: Kept) -> None:
    kept = lasting_kept
    [name] = kept.finish()
    kept.announce("a")
    kept.reopen()
    expected = [(name, status) for status in ("pending", "claimed", "running", "completed")]
    assert told(kept.tables.recent_events()) == [*expected, ("theirs-a", "pending")]


def test_the_newest_events_have_no_hole_though_jobs_were_deleted_in_between(lasting_kept: Kept) -> None:
    kept = lasting_kept
    kept.submit(2)
    kept.finish()
    kept.passes(LIMITS.retention_s + 1)
    assert kept.tables.clean(kept.wall_ns) == 1
    late = kept.submit(2)
    kept.reopen()
    assert told(kept.tables.recent_events()) == [(name, "pending") for name in late]


def test_the_newest_events_are_no_more_than_a_feed_holds(lasting: str) -> None:
    limits = replace(LIMITS, feed_bytes=250)
    kept = Kept(lambda: tables_of(lasting, limits), limits)
    names = kept.submit(9)
    kept.reopen()
    events = kept.tables.recent_events()
    assert told(events) == [(name, "pending") for name in names[-len(events) :]]
    assert 150 < sum(map(len, events)) <= 250
    kept.close()


def test_announcements_stay_as_long_as_a_feed_might_hold_them(lasting: str) -> None:
    limits = replace(LIMITS, feed_events=10, max_batch=5, max_remembered=10)
    kept = Kept(lambda: tables_of(lasting, limits), limits)
    for number in range(15):
        kept.announce(f"a{number}")
    kept.tables.clean(kept.wall_ns)
    kept.reopen()
    assert kept.rest.announcement_ids == [f"a{n}" for n in range(5, 15)]
    assert len(kept.tables.recent_events()) == 10
    kept.close()


def test_the_clock_goes_on_though_nothing_else_was_written(lasting_kept: Kept) -> None:
    kept = lasting_kept
    kept.passes(100)
    kept.tables.note_clock()
    kept.reopen()
    assert kept.opening.counters.clock_ns == kept.now_ns


def test_a_write_that_fails_leaves_nothing_behind(
    lasting_kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = lasting_kept
    kept.submit()
    before = kept.everything()

    def fail(*args: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(kept.tables._database, "insert", fail)
    with pytest.raises(OSError, match="disk"):
        kept.submit(3)
    monkeypatch.undo()
    assert kept.everything() == before
    kept.reopen()
    assert kept.everything() == before
    assert (kept.rest.number, kept.rest.seq) == (1, 2)
