"""What doors tell each other of their sockets, with the clock moved by hand."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.limits import MS, Limits
from fleet.occupancy import Occupancy, OccupancyTable

LIMITS = Limits(long_poll_ms=1, occupancy_interval_ms=1, door_timeout_ms=10, max_named_per_door=3)
SILENCE_NS = 10 * MS
NOBODY = Occupancy()
counts = st.dictionaries(st.sampled_from("abc"), st.integers(1, 9))
says = st.tuples(st.integers(0, 4 * MS), st.sampled_from("123"), counts, counts)


def test_a_door_hears_the_sum_of_the_others_and_never_its_own() -> None:
    table = OccupancyTable(LIMITS)
    assert table.exchange("1", Occupancy({"a": 1, "b": 2}, {"x": 4}), 0) == NOBODY
    assert table.exchange("2", Occupancy({"b": 3}, {"x": 5}), 0) == Occupancy({"a": 1, "b": 2}, {"x": 4})
    assert table.exchange("3", NOBODY, 0) == Occupancy({"a": 1, "b": 5}, {"x": 9})
    assert table.exchange("2", Occupancy({"b": 3}, {"x": 5}), 0) == Occupancy({"a": 1, "b": 2}, {"x": 4})


def test_a_principal_and_an_address_of_one_name_are_two() -> None:
    table = OccupancyTable(LIMITS)
    table.exchange("1", Occupancy({"10.0.0.1": 1}, {"10.0.0.1": 7}), 0)
    assert table.exchange("2", NOBODY, 0) == Occupancy({"10.0.0.1": 1}, {"10.0.0.1": 7})


def test_what_a_door_says_takes_the_place_of_what_it_said() -> None:
    table = OccupancyTable(LIMITS)
    table.exchange("1", Occupancy({"a": 5, "b": 1}), 0)
    table.exchange("1", Occupancy({"a": 2}), 1)
    assert table.exchange("2", NOBODY, 2) == Occupancy({"a": 2})
    table.exchange("1", NOBODY, 3)
    assert table.exchange("2", NOBODY, 4) == NOBODY


def test_a_door_that_falls_silent_is_forgotten_until_it_speaks_again() -> None:
    table = OccupancyTable(LIMITS)
    table.exchange("1", Occupancy({"a": 5}), 0)
    assert table.exchange("2", NOBODY, SILENCE_NS) == Occupancy({"a": 5})
    assert table.exchange("2", NOBODY, SILENCE_NS + 1) == NOBODY
    table.exchange("1", Occupancy({"a": 5}), SILENCE_NS + 2)
    assert table.exchange("2", NOBODY, SILENCE_NS + 2) == Occupancy({"a": 5})


def test_of_a_door_that_names_too_many_the_largest_are_kept() -> None:
    table = OccupancyTable(LIMITS)
    many = {"a": 1, "b": 9, "c": 2, "d": 8, "e": 7}
    table.exchange("1", Occupancy(many, many), 0)
    kept = {"b": 9, "d": 8, "e": 7}
    assert table.exchange("2", NOBODY, 0) == Occupancy(kept, kept)


@settings(max_examples=200)
@given(st.lists(says, max_size=20))
def test_the_table_agrees_with_a_plain_list_of_all_that_was_said(
    steps: list[tuple[int, str, dict[str, int], dict[str, int]]],
) -> None:
    table, said, now_ns = OccupancyTable(LIMITS), [], 0
    for step_ns, door, principals, addresses in steps:
        now_ns += step_ns
        heard = table.exchange(door, Occupancy(principals, addresses), now_ns)
        said.append((now_ns, door, principals, addresses))
        last = {step[1]: step for step in said if step[0] >= now_ns - SILENCE_NS}
        others = [step for name, step in last.items() if name != door]
        assert heard.principals == sum((Counter(step[2]) for step in others), Counter())
        assert heard.addresses == sum((Counter(step[3]) for step in others), Counter())
