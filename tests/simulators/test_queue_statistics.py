"""How sure an estimate is, against series whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
import pytest

from fleet.errors import Misuse
from simulators.queue import statistics
from simulators.queue.statistics import Floats, Interval


def covered(made: Callable[[np.random.Generator], Interval], truth: float, runs: int = 1_000) -> float:
    rng = np.random.default_rng(20_261_128)
    found = [made(rng) for _ in range(runs)]
    return sum(each.low <= truth <= each.high for each in found) / runs


def autoregressive(rng: np.random.Generator, count: int, phi: float) -> Floats:
    """x' = phi x + noise, from its steady state: the mean is 0, and its variance 1 / (1 - phi)^2 / count."""
    noise = rng.standard_normal(count)
    noise[0] /= np.sqrt(1 - phi**2)
    made = np.empty(count)
    value = 0.0
    for place, each in enumerate(noise):
        value = phi * value + each
        made[place] = value
    return made


def test_intervals_of_replications_hold_the_truth_as_often_as_they_say() -> None:
    assert 0.93 <= covered(lambda rng: statistics.mean_of(rng.exponential(2.0, 50)), 2.0) <= 0.97
    assert 0.88 <= covered(lambda rng: statistics.mean_of(rng.normal(1.0, 3.0, 10), 0.9), 1.0) <= 0.92


def test_intervals_of_one_long_run_do_so_too() -> None:
    assert (
        0.93 <= covered(lambda rng: statistics.steady_mean(autoregressive(rng, 2_000, 0.6)), 0.0, 400) <= 0.97
    )
    naive = covered(lambda rng: statistics.mean_of(autoregressive(rng, 2_000, 0.6)), 0.0, 400)
    assert naive < 0.8  # which takes the values for independent


def test_intervals_of_percentiles_hold_the_truth_whatever_the_distribution() -> None:
    truth = -np.log(0.1)
    assert 0.93 <= covered(lambda rng: statistics.percentile_of(rng.exponential(1.0, 200), 90), truth) <= 0.98


def test_the_warm_up_of_a_known_series_is_found() -> None:
    series = np.concatenate([np.linspace(20, 1, 50), 1 + 0.1 * np.cos(np.arange(450) * 1.7)])
    assert statistics.warm_up(series) == 50
    assert np.mean(series[50:]) == pytest.approx(1.000011061, rel=1e-9)
    assert statistics.warm_up(np.full(1_000, 0.3)) == 0  # which no float is
    assert statistics.warm_up(np.arange(100.0)) == 50  # half at most: it never settles


def test_pairs_that_met_the_same_differ_by_little() -> None:
    rng = np.random.default_rng(1)
    met = rng.exponential(10.0, 30)
    faster = met * 0.9
    paired = statistics.difference_of(met, faster)
    assert paired.high < 0
    assert paired.estimate == pytest.approx(-0.1 * np.mean(met))
    assert paired.error < statistics.mean_of(met).error / 5


def test_z_is_in_standard_errors() -> None:
    found = statistics.mean_of([8.0, 10.0, 12.0])
    assert found.error == pytest.approx(2 / 3**0.5)
    assert found.z(8.0) == pytest.approx(3**0.5)
    assert statistics.mean_of([1.0, 1.0]).z(1.0) == 0.0
    assert statistics.mean_of([1.0, 1.0]).z(2.0) == inf


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: statistics.mean_of([1.0]), "2 values at least"),
        (lambda: statistics.mean_of([1.0, float("nan")]), "no numbers"),
        (lambda: statistics.difference_of([1.0, 2.0], [1.0, 2.0, 3.0]), "as many values"),
        (lambda: statistics.percentile_of([1.0], 100), "between 0 and 100"),
        (lambda: statistics.steady_mean(np.ones(63)), "64 values at least"),
    ],
)
def test_what_says_nothing_is_refused(ask: Callable[[], object], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        ask()
