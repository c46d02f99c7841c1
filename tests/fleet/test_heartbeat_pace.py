"""The interval that robots are told, by the size of the fleet."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.heartbeat_pace import HeartbeatPace
from fleet.limits import Limits

LIMITS = Limits()
quick = settings(max_examples=100)


def told(*sizes: int) -> list[int]:
    """What one pace says of these sizes, one after another."""
    pace, intervals = HeartbeatPace(LIMITS), []
    for robots in sizes:
        pace.adapt(robots)
        intervals.append(pace.interval_ms)
    return intervals


def test_up_to_ten_thousand_robots_beat_every_five_seconds() -> None:
    assert told(0, 1, 9_999, 10_000) == [5_000] * 4


def test_more_robots_beat_more_slowly_with_room_for_a_quarter_more() -> None:
    assert told(10_001, 12_500, 12_505, 100_000) == [6_251, 6_251, 7_816, 60_000]


@quick
@given(st.lists(st.integers(0, 100_000), max_size=50))
def test_no_history_of_sizes_leads_over_the_rate(sizes: list[int]) -> None:
    for robots, interval_ms in zip(sizes, told(*sizes), strict=True):
        assert robots * 1_000 <= interval_ms * LIMITS.max_heartbeats_per_s
        assert 5_000 <= interval_ms <= 60_000


@quick
@given(st.integers(1_000, 90_000), st.lists(st.floats(0.9, 1.1), max_size=200))
def test_a_fleet_whose_size_wavers_keeps_its_interval(robots: int, wavering: list[float]) -> None:
    intervals = told(robots, *(int(robots * part) for part in wavering))
    assert len(set(intervals)) <= 2


def test_an_interval_is_given_up_only_when_it_is_far_too_long() -> None:
    assert told(40_000, 32_000, 31_249, 31_248, 9_000, 0) == [25_000, 25_000, 25_000, 19_530, 5_625, 5_000]


def test_a_pace_that_resumes_goes_on_as_before() -> None:
    pace = HeartbeatPace(LIMITS)
    pace.resume(25_000, 32_000)
    assert pace.interval_ms == 25_000
    pace.resume(25_000, 100)
    assert pace.interval_ms == 5_000
