"""Random numbers: the moments of each distribution, and streams that do not disturb each other."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from simulators.distributions import (
    Constant,
    Distribution,
    Empirical,
    Erlang,
    Exponential,
    Hyperexponential,
    Lognormal,
    Uniform,
)
from simulators.draws import choice_of, draw_from, stream

COUNT = 40_000
# With its squared coefficient of variation.
DISTRIBUTIONS: list[tuple[Distribution, float]] = [
    (Constant(kind="constant", value="2s"), 0.0),
    (Exponential(kind="exponential", mean="500ms"), 1.0),
    (Erlang(kind="erlang", phases=4, mean="2s"), 0.25),
    (
        Hyperexponential(kind="hyperexponential", means=["1s", "10s"], probabilities=[0.75, 0.25]),
        2 * (0.75 * 1 + 0.25 * 100) / 3.25**2 - 1,
    ),
    (Lognormal(kind="lognormal", mean="3s", scv=0.5), 0.5),
    (Uniform(kind="uniform", low="1s", high="3s"), (4 / 12) / 4),
    (Empirical(kind="empirical", values=["1s", "2s", "5s"], weights=[1.0, 0.0, 1.0]), 4 / 9),
]


@pytest.mark.parametrize(("distribution", "scv"), DISTRIBUTIONS, ids=lambda each: getattr(each, "kind", ""))
def test_a_distribution_has_its_moments(distribution: Distribution, scv: float) -> None:
    draw = draw_from(distribution, stream(7, "test"))
    values = np.array([draw() for _ in range(COUNT)])
    mean_s = distribution.mean_s
    assert values.mean() == pytest.approx(mean_s, abs=5 * mean_s * sqrt(scv / COUNT) + 1e-12)
    assert values.var() / mean_s**2 == pytest.approx(scv, rel=0.1)
    assert values.min() >= 0


def test_the_same_seed_and_purpose_draw_the_same_and_others_draw_others() -> None:
    def first(seed: int, purpose: str, number: int) -> float:
        return stream(seed, purpose, number).random()

    assert first(1, "arrivals", 0) == first(1, "arrivals", 0)
    others = {
        first(1, "arrivals", 0),
        first(2, "arrivals", 0),
        first(1, "robots", 0),
        first(1, "arrivals", 1),
    }
    assert len(others) == 4


def test_what_has_no_weight_is_never_chosen() -> None:
    draw = choice_of([0.0, 1.0, 0.0, 3.0, 0.0], stream(1, "test"))
    counts = np.bincount([draw() for _ in range(10_000)], minlength=5)
    assert list(counts[[0, 2, 4]]) == [0, 0, 0]
    assert counts[3] / counts[1] == pytest.approx(3, rel=0.15)
