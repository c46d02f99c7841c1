"""What a poor network does to what is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulators.draws import stream
from simulators.load.weather import RESEND_US, Weather
from simulators.scenario import Network

MS = 1_000


def weather(seed: int = 1, **written: Any) -> Weather:
    return Weather(Network.model_validate(written), stream(seed, "weather"), 0)


def delays(of: Weather, gap_us: int = 10 * MS, count: int = 5_000) -> np.ndarray[Any, Any]:
    times = np.arange(count) * gap_us
    return np.array([of.arrives_us(int(at_us), inbound=False) for at_us in times]) - times


def test_a_good_network_delays_nothing() -> None:
    assert not delays(weather()).any()


def test_latency_is_that_of_its_distribution_and_nothing_overtakes() -> None:
    network = weather(latency={"kind": "exponential", "mean": "80ms"})
    times = np.arange(5_000) * 10 * MS
    arrivals = [network.arrives_us(int(at_us), inbound=True) for at_us in times]
    assert np.all(np.diff(arrivals) >= 0)
    rare = delays(weather(latency={"kind": "exponential", "mean": "80ms"}), gap_us=10_000 * MS)
    assert rare.mean() == pytest.approx(80 * MS, rel=0.1)


def test_what_is_lost_comes_after_it_was_sent_again() -> None:
    late = delays(weather(loss=0.1), gap_us=100_000 * MS, count=20_000)
    again = late // RESEND_US
    assert np.count_nonzero(again == 1) / 20_000 == pytest.approx(0.09, rel=0.1)  # lost once
    assert np.count_nonzero(again == 3) / 20_000 == pytest.approx(0.009, rel=0.3)  # twice
    assert set(late % RESEND_US) == {0}


def test_while_it_is_down_nothing_arrives() -> None:
    up, down = {"kind": "constant", "value": "3s"}, {"kind": "constant", "value": "1s"}
    network = weather(flapping={"up": up, "down": down})
    arrivals = {0: 0, 2_999: 2_999, 3_000: 4_000, 3_900: 4_000, 4_000: 4_000, 7_500: 8_000}
    for at_ms, arrives_ms in arrivals.items():
        assert network.arrives_us(at_ms * MS, inbound=False) == arrives_ms * MS
    assert network.arrives_us(11_100 * MS, inbound=True) == 12_000 * MS


def test_the_same_seed_makes_the_same_weather() -> None:
    written = {"latency": {"kind": "exponential", "mean": "80ms"}, "loss": 0.1}
    assert np.array_equal(delays(weather(**written)), delays(weather(**written)))
    assert not np.array_equal(delays(weather(**written)), delays(weather(seed=2, **written)))
