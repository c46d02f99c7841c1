"""Token buckets against a plain model, and the table that holds them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.rates import Rates, network_of

quick = settings(max_examples=200)
RATE = st.sampled_from([0.1, 0.5, 1.0, 4.0, 1_000.0])
BURST = st.integers(1, 20)
PAUSES = st.lists(st.sampled_from([0.0, 0.0, 0.125, 0.25, 1.0, 2.0, 30.0]), max_size=60)


class PlainBucket:
    """Tokens that drip in, counted in exact parts."""

    def __init__(self, per_s: float, burst: int) -> None:
        self.per_s, self.burst, self.tokens, self.at = per_s, burst, float(burst), 0.0

    def take(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_s)
        self.at = now
        if self.tokens < 1 - 1e-6:
            return False
        self.tokens -= 1
        return True


@quick
@given(RATE, BURST, PAUSES)
def test_a_bucket_allows_what_a_plain_bucket_allows(per_s: float, burst: int, pauses: list[float]) -> None:
    rates, plain, now = Rates(per_s, burst, 10), PlainBucket(per_s, burst), 0.0
    for pause in pauses:
        now += pause
        assert (rates.take("a", now) == 0.0) == plain.take(now)


@quick
@given(RATE, BURST, PAUSES)
def test_who_waits_as_told_is_allowed_and_not_much_earlier(
    per_s: float, burst: int, pauses: list[float]
) -> None:
    rates, now = Rates(per_s, burst, 10), 1e6
    for pause in pauses:
        now += pause
        wait_s = rates.take("a", now)
        if wait_s:
            assert rates.take("a", now + wait_s / 2) > 0.0
            assert rates.take("a", now + wait_s) == 0.0
            now += wait_s


def test_a_refusal_costs_nothing() -> None:
    rates = Rates(1.0, 1, 10)
    assert rates.take("a", 0.0) == 0.0
    assert [rates.take("a", 0.5) for _ in range(100)] == [0.5] * 100
    assert rates.take("a", 1.0) == 0.0


def test_one_key_does_not_pay_for_another() -> None:
    rates = Rates(1.0, 2, 10)
    assert [rates.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert rates.take("b", 0.0) == 0.0


def test_a_million_keys_take_no_more_room_than_the_table_has() -> None:
    rates = Rates(1.0, 1, 1_000)
    for key in range(1_000_000):
        rates.take(key, 0.0)
    assert len(rates) == 1_000


def test_a_key_that_keeps_asking_is_not_forgotten_though_it_is_refused() -> None:
    rates = Rates(0.001, 1, 10)
    rates.take("loud", 0.0)
    for key in range(1_000):
        rates.take(key, 0.0)
        assert rates.take("loud", 0.0) > 0.0
    assert rates.take(0, 0.0) == 0.0  # long silent, so forgotten: it has its burst again


@pytest.mark.parametrize("wrong", [(0.0, 1, 1), (1.0, 0, 1), (1.0, 1, 0)])
def test_a_bucket_that_could_never_be_used_is_refused(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Rates(*wrong)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("/run/fleetcast.sock", "/run/fleetcast.sock"),
    ],
)
def test_a_peer_is_its_address_or_its_whole_network_where_one_client_has_many(
    address: str, network: str
) -> None:
    assert network_of(address) == network
