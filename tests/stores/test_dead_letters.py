"""Dead letters and long histories in the three stores."""

from __future__ import annotations

from typing import Any

import pytest
from stores.kept import Kept

from fleet.dead_letters import DeadLetterFilter, DeadLetters, Redrive, among
from fleet.job import JobEvent

ALL = DeadLetterFilter()


def dead(kept: Kept, *errors: str, **spec: Any) -> list[str]:
    """Jobs that failed for good, each with its error."""
    names = []
    for error in errors:
        names += kept.submit(**spec)
        [grant] = kept.claim()
        kept.report(grant, JobEvent.FAIL, error=error, retryable=False)
    return names


def ids(found: DeadLetters) -> list[str]:
    return [record.job.job_id for record in found.records]


def look(kept: Kept, wanted: DeadLetterFilter = ALL, place: int = 0, limit: int = 100, **how: Any) -> Any:
    return kept.tables.dead_letters(
        wanted, place, limit, how.get("max_bytes", 10_000), how.get("newest_first", True)
    )


def redrive(kept: Kept, request_id: str, found: DeadLetters) -> int:
    done = kept.core.redrive(Redrive(ALL, request_id=request_id), found, *kept.clock)
    kept.write()
    return done.redriven


def test_dead_letters_are_shown_newest_first_with_their_payloads(kept: Kept) -> None:
    names = dead(kept, "jam", "fire", payload={"x": 1})
    kept.finish(2)
    kept.submit()
    found = look(kept)
    assert (ids(found), found.place, found.remaining) == (names[::-1], 0, 0)
    assert [record.job.payload for record in found.records] == [{"x": 1}] * 2
    assert ids(look(kept, newest_first=False)) == names


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_of_dead_letters_cover_all_once_and_count_the_rest(kept: Kept, newest_first: bool) -> None:
    names = dead(kept, *["jam"] * 7)
    place, seen, rest = 0, [], []
    while True:
        found = look(kept, place=place, limit=3, newest_first=newest_first)
        seen += ids(found)
        rest.append(found.remaining)
        place = found.place
        if not place:
            break
    assert seen == (names[::-1] if newest_first else names)
    assert rest == [4, 1, 0]


def test_a_page_of_dead_letters_is_bounded_by_its_payloads(kept: Kept) -> None:
    names = dead(kept, *["jam"] * 5, payload={"x": "y" * 100})
    found = look(kept, max_bytes=150, newest_first=False)
    assert (ids(found), found.remaining) == (names[:2], 3)
    assert ids(look(kept, place=found.place, newest_first=False)) == names[2:]


def test_a_filter_finds_few_among_many(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.dead_letters.LOOKED_AT", 4)
    monkeypatch.setattr("actors.dead_letter_tables.TURN", 3)
    names = dead(kept, "fire 1", *["jam"] * 5, "fire 2", *["jam"] * 3)
    wanted = DeadLetterFilter(error="fire")
    found, place, pages = [], 0, 0
    while place or not pages:
        page = look(kept, wanted, place, 10)
        found, place, pages = found + ids(page), page.place, pages + 1
    assert found == [names[6], names[0]]
    assert pages == 3


def test_who_was_redriven_is_no_dead_letter_any_more(kept: Kept) -> None:
    names = dead(kept, "jam", "jam", "jam")
    found = look(kept, limit=2, newest_first=False)
    assert redrive(kept, "r", found) == 2
    assert ids(look(kept)) == [names[2]]
    assert redrive(kept, "s", found) == 0
    assert [kept.tables.history(name)[-1].event for name in names] == ["retried", "retried", "fail"]


def test_what_was_redriven_stays_so_after_a_restart(lasting_kept: Kept) -> None:
    kept = lasting_kept
    [name] = dead(kept, "jam", payload={"x": 1})
    found = look(kept)
    redrive(kept, "r", found)
    kept.reopen()
    assert ids(look(kept)) == []
    [old] = kept.tables.find([name])
    [new] = kept.tables.find([old.job.retried_by])
    assert (new.job.retry_of, new.job.payload, new.job.status) == (name, {"x": 1}, "pending")
    kept.core.replies.remember(kept.tables.replies(["r"])[0])
    assert redrive(kept, "r", found) == 1  # what it did then
    assert len(kept.jobs()) == 2


def test_jobs_that_are_named_are_taken_if_they_are_dead(kept: Kept) -> None:
    names = dead(kept, "jam", "fire", "jam")
    [done] = kept.finish()
    command = Redrive(DeadLetterFilter(error="jam", job_ids=[*names, done, "nobody"]), limit=1)
    found = among(kept.tables.find(command.wanted.job_ids), command, 10_000)
    assert (ids(found), found.remaining) == ([names[0]], 2)
    command = Redrive(command.wanted, found.place, 9)
    found = among(kept.tables.find(command.wanted.job_ids), command, 10_000)
    assert (ids(found), found.place, found.remaining) == ([names[2]], 0, 0)


def test_a_history_is_read_in_parts(kept: Kept) -> None:
    [name] = kept.finish()
    events = ["submit", "claim", "start", "complete"]
    assert [line.event for line in kept.tables.history(name)] == events
    assert [line.event for line in kept.tables.history(name, 1, 2)] == events[1:3]
    assert kept.tables.history(name, 4, 2) == []


def test_progress_beyond_its_bound_is_in_the_job_and_not_in_its_history(lasting_kept: Kept) -> None:
    kept = lasting_kept
    kept.limits = kept.core._limits = type(kept.limits)(max_progress_events=2)
    kept.submit()
    [grant] = kept.claim()
    for percent in (10, 20, 30, 40):
        kept.report(grant, JobEvent.PROGRESS, progress=percent)
    kept.reopen()
    kept.report(grant, JobEvent.PROGRESS, progress=50)
    history = kept.tables.history(grant.job.job_id)
    assert [line.progress for line in history if line.event == "progress"] == [10, 20]
    [record] = kept.tables.find([grant.job.job_id])
    assert (record.job.progress, record.progress_events) == (50, 2)
    kept.report(grant, JobEvent.START)
    kept.reopen()
    assert kept.opening.counters.number == 3
