"""Claims that come too late."""

from __future__ import annotations

from fleet.admissions import EndedAdmissions
from fleet.limits import SECOND, Limits

LIMITS = Limits(max_robots=2)
MINUTE_NS = 60 * SECOND


def test_claims_of_before_come_too_late_and_later_ones_do_not() -> None:
    ended = EndedAdmissions(LIMITS)
    ended.end_before("r", 7, 0)
    assert [ended.too_late("r", admission, 1) for admission in (6, 7, 8)] == [True, False, False]
    assert not ended.too_late("s", 1, 1)


def test_an_older_end_that_arrives_later_takes_nothing_back() -> None:
    ended = EndedAdmissions(LIMITS)
    ended.end_before("r", 7, 0)
    ended.end_before("r", 5, 1)
    assert ended.too_late("r", 6, 2)


def test_an_end_is_forgotten_once_no_claim_of_before_can_be_on_its_way() -> None:
    ended = EndedAdmissions(LIMITS)
    ended.end_before("r", 7, 0)
    ended.end_before("s", 7, 1)
    assert ended.too_late("r", 6, MINUTE_NS - 1)
    assert not ended.too_late("r", 6, MINUTE_NS)
    assert ended.too_late("s", 6, MINUTE_NS)
    assert len(ended) == 1


def test_the_memory_of_ends_is_bounded() -> None:
    ended = EndedAdmissions(LIMITS)
    for robot_id in ("r", "s", "t"):
        ended.end_before(robot_id, 7, 0)
    assert len(ended) == 2
    assert [ended.too_late(robot_id, 6, 1) for robot_id in ("r", "s", "t")] == [False, True, True]
