"""The search for the largest fleet that meets an objective."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.load.limit import LimitSearch


def searched(search: LimitSearch, limit: int) -> list[int]:
    tried = []
    while (robots := search.next_robots) is not None:
        tried.append(robots)
        search.tell(robots, robots <= limit)
        assert len(tried) < 100
    return tried


@given(st.integers(0, 200_000), st.integers(1, 100_000), st.integers(1, 100_000), st.floats(0.01, 0.5))
def test_it_ends_close_to_the_limit(limit: int, start: int, most: int, precision: float) -> None:
    search = LimitSearch(start, most, precision)
    tried = searched(search, limit)
    assert len(tried) == len(set(tried))
    assert all(1 <= robots <= most for robots in tried)
    if limit == 0:
        assert search.good is None
    elif limit >= most:
        assert search.good == most
    else:
        assert search.good is not None
        assert search.good <= limit
        assert search.bad is not None
        assert search.bad - search.good <= max(1, precision * search.good)


def test_it_doubles_and_then_goes_in_between() -> None:
    tried = searched(LimitSearch(1_000, 100_000, 0.1), 5_000)
    assert tried == [1_000, 2_000, 4_000, 8_000, 5_657, 4_757, 5_188]


@pytest.mark.parametrize("start", [5, 50])
def test_a_fleet_of_several_parts_is_never_smaller_than_they_are(start: int) -> None:
    assert min(searched(LimitSearch(start, 100, 0.1, least=3), 0)) == 3
