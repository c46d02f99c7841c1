"""The small parts: wall time, back-off, the window of waits, the limits."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import Misuse, PeerFault
from fleet.limits import MAY_BE_ZERO, MS, SECOND, Limits
from fleet.retry import backoff_ns
from fleet.wait_window import WaitWindow
from fleet.wall_time import NS_PER_DAY, day_of, rfc3339, wall_ns_of

quick = settings(max_examples=100)


@quick
@given(st.integers(0, 253_402_300_799_999))
def test_wall_time_survives_the_wire_to_the_millisecond(wall_ms: int) -> None:
    text = rfc3339(wall_ms * MS)
    assert wall_ns_of(text) == wall_ms * MS
    assert len(text) == 24
    assert text.endswith("Z")


def test_the_wire_is_utc_wherever_the_server_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for zone in ("America/St_Johns", "Pacific/Kiritimati"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert rfc3339(1_736_937_000_000 * MS) == "2025-01-15T10:30:00.000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("last", "beyond"),
    [
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01"),
    ],
)
def test_a_time_that_the_wire_cannot_write_is_refused(last: str, beyond: str) -> None:
    assert wall_ns_of(rfc3339(wall_ns_of(last))) == wall_ns_of(last)
    with pytest.raises(PeerFault, match="years 1 to 9999"):
        wall_ns_of(beyond)


@quick
@given(st.integers(0, 4 * 10**18))
def test_the_wire_cuts_wall_time_and_never_rounds_it_up(wall_ns: int) -> None:
    assert wall_ns_of(rfc3339(wall_ns)) == wall_ns // MS * MS


@pytest.mark.parametrize(
    ("text", "wall_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1_000),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T23:59:59.500Z", -500 * MS),
        ("2025-01-15T10:30:00.000Z", 1_736_937_000 * SECOND),
    ],
)
def test_a_time_with_an_offset_is_read(text: str, wall_ns: int) -> None:
    assert wall_ns_of(text) == wall_ns


@pytest.mark.parametrize(
    "text", ["", "soon", "2025-01-15T10:30:00", "2025-01-15", "2025-13-01T00:00:00Z", "9" * 5_000]
)
def test_a_time_that_is_none_or_lacks_its_offset_is_the_peers_fault(text: str) -> None:
    with pytest.raises(PeerFault) as refused:
        wall_ns_of(text)
    assert refused.value.code == "bad_time"
    assert len(refused.value.detail) < 120


@quick
@given(st.text(max_size=40))
def test_any_text_is_a_time_or_the_peers_fault(text: str) -> None:
    try:
        wall_ns = wall_ns_of(text)
    except PeerFault:
        return
    assert isinstance(wall_ns, int)


def test_a_day_ends_at_midnight_utc() -> None:
    assert day_of(wall_ns_of("1970-01-02T23:59:59.999Z")) == 1
    assert day_of(2 * NS_PER_DAY) == 2


@quick
@given(st.integers(-3, 10**6), st.integers(1, 5_000), st.integers(5_000, 400_000), st.integers())
def test_a_backoff_stays_within_its_ceiling(attempt: int, base_ms: int, cap_ms: int, seed: int) -> None:
    limits = Limits(backoff_base_ms=base_ms, backoff_max_ms=cap_ms, cancel_grace_ms=1)
    doublings = min(max(attempt - 1, 0), 60)
    wait_ns = backoff_ns(attempt, limits, Random(seed))
    assert 0 <= wait_ns <= min(cap_ms, base_ms * 2**doublings) * MS


def test_a_backoff_uses_the_whole_width_of_its_jitter() -> None:
    limits = Limits()
    rng = Random(1)
    waits = [backoff_ns(3, limits, rng) for _ in range(400)]
    assert min(waits) < 200 * MS
    assert max(waits) > 3_800 * MS
    assert max(waits) <= 4_000 * MS


def test_the_same_seed_gives_the_same_backoffs() -> None:
    one, two = Random(5), Random(5)
    assert [backoff_ns(n, Limits(), one) for n in range(9)] == [
        backoff_ns(n, Limits(), two) for n in range(9)
    ]


def test_an_empty_window_has_a_mean_of_zero() -> None:
    assert WaitWindow(300).mean_ms(5 * SECOND) == 0


def test_the_window_averages_what_fell_into_it_and_forgets_the_rest() -> None:
    window = WaitWindow(10)
    window.add(100 * MS, 0)
    window.add(300 * MS, 5 * SECOND)
    assert window.mean_ms(9 * SECOND) == 200
    assert window.mean_ms(10 * SECOND) == 300
    assert window.mean_ms(15 * SECOND) == 0


@quick
@given(
    st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(0, 10 * SECOND)), max_size=30),
    st.integers(1, 8),
)
def test_the_window_agrees_with_a_plain_list(steps: list[tuple[int, int]], window_s: int) -> None:
    window, kept, now_ns = WaitWindow(window_s), [], 0
    for step_ns, wait_ns in steps:
        now_ns += step_ns
        window.add(wait_ns, now_ns)
        kept.append((now_ns // SECOND, wait_ns))
        live = [wait for second, wait in kept if second > now_ns // SECOND - window_s]
        assert window.mean_ms(now_ns) == sum(live) // len(live) // MS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in Limits.__struct_fields__
        for value in (0, -1)
        if value < 0 or name not in MAY_BE_ZERO
    ],
)
def test_a_limit_of_nothing_is_a_misuse_that_names_it(name: str, value: int) -> None:
    with pytest.raises(Misuse, match=name):
        Limits(**{name: value})


def test_a_feed_must_hold_a_whole_batch() -> None:
    assert Limits(max_batch=10, feed_events=10).feed_events == 10
    with pytest.raises(Misuse, match="feed_events"):
        Limits(max_batch=11, feed_events=10)


def test_the_grace_of_a_cancel_is_no_longer_than_the_longest_backoff() -> None:
    assert Limits(cancel_grace_ms=9, backoff_max_ms=9).cancel_grace_ms == 9
    with pytest.raises(Misuse, match="cancel_grace_ms"):
        Limits(cancel_grace_ms=10, backoff_max_ms=9)


@pytest.mark.parametrize("period", ["long_poll_ms", "occupancy_interval_ms"])
def test_a_door_speaks_twice_before_it_is_silent(period: str) -> None:
    quick = {"long_poll_ms": 1, "occupancy_interval_ms": 1}
    assert Limits(**quick | {"door_timeout_ms": 20, period: 10}).door_timeout_ms == 20
    with pytest.raises(Misuse, match=period):
        Limits(**quick | {"door_timeout_ms": 19, period: 10})


def test_a_lease_lasts_three_heartbeats_but_never_under_its_minimum() -> None:
    assert Limits().lease_ms == Limits().lease_ms_at(10_000) == 30_000
    assert Limits(heartbeat_interval_ms=20_000).lease_ms == Limits().lease_ms_at(20_000) == 60_000


def test_a_robot_is_offline_after_three_heartbeats() -> None:
    assert Limits().offline_after_ms_at(5_000) == 15_000
    assert Limits(missed_heartbeats=4).offline_after_ms_at(200) == 800


def test_the_longest_interval_lets_the_largest_fleet_keep_to_its_rate() -> None:
    least = {"max_robots": 1_000, "max_heartbeats_per_s": 20}
    assert Limits(**least, max_heartbeat_interval_ms=50_000).max_robots == 1_000
    with pytest.raises(Misuse, match="max_heartbeats_per_s"):
        Limits(**least, max_heartbeat_interval_ms=49_999)


def test_the_longest_interval_is_no_shorter_than_the_shortest() -> None:
    with pytest.raises(Misuse, match="max_heartbeat_interval_ms"):
        Limits(heartbeat_interval_ms=60_001)
