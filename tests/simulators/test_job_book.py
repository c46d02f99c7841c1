"""What became of each job, whoever speaks first."""

from __future__ import annotations

import msgspec
import pytest

from simulators.load.fleet import JobWord
from simulators.load.job_book import JobBook
from simulators.load.job_load import Submitted
from simulators.load.watchers import Origin

MS = 1_000
SUBMITTED = Submitted("j", due_us=10 * MS, acked_us=14 * MS)
DONE = JobWord("j", 1, granted_us=12 * MS, told_us=50 * MS, acked_us=60 * MS, outcome="completed")
GAVE_UP = JobWord("j", 1, granted_us=12 * MS, told_us=50 * MS, acked_us=60 * MS, outcome="failed")
FENCED = JobWord("j", 1, granted_us=12 * MS, told_us=50 * MS, outcome="stale_token")
AGAIN = JobWord("j", 2, granted_us=70 * MS, told_us=80 * MS, acked_us=90 * MS, outcome="completed")


def medians(book: JobBook) -> dict[str, float]:
    return {name: each.quantile_ms(50) for name, each in book.latencies.items()}


@pytest.mark.parametrize("robot_first", [False, True])
def test_latencies_count_from_when_a_job_was_due(robot_first: bool) -> None:
    book = JobBook()
    if robot_first:
        assert book.worked([DONE]) == []
        assert book.open == []
    assert book.submitted([SUBMITTED]) == [Origin("j", "pending", 10 * MS)]
    if not robot_first:
        assert book.open == ["j"]
        assert book.worked([DONE]) == [Origin("j", "completed", 50 * MS)]
    assert medians(book) == pytest.approx({"submit": 4, "grant": 2, "life": 50}, rel=0.001)
    assert (book.open, book.completed, book.duplicated) == ([], 1, 0)
    assert book.knows("j")
    assert not book.knows("k")


def test_what_is_said_of_other_producers_jobs_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulators.load.job_book.MOST_EARLY", 3)
    book = JobBook()
    book.worked([msgspec.structs.replace(DONE, job_id=name) for name in "jabc"])  # one too many
    book.submitted([SUBMITTED, msgspec.structs.replace(SUBMITTED, job_id="c")])
    assert (book.open, book.completed) == (["j"], 1)


def test_a_job_that_failed_is_open_until_it_is_done() -> None:
    book = JobBook()
    book.submitted([SUBMITTED])
    book.worked([GAVE_UP])
    assert (book.open, book.failed_attempts) == (["j"], 1)
    book.worked([AGAIN])
    assert (book.open, book.completed) == ([], 1)
    assert medians(book) == pytest.approx({"submit": 4, "grant": 2, "life": 80}, rel=0.001)


def test_two_accepted_ends_are_a_duplicate_and_a_refused_one_is_none() -> None:
    book = JobBook()
    book.submitted([SUBMITTED])
    book.worked([FENCED, AGAIN])
    assert (book.completed, book.duplicated) == (1, 0)
    book.worked([DONE])
    assert (book.completed, book.duplicated) == (1, 1)
