"""Random numbers as a scenario wants them: the same seed and purpose give the same numbers.

Each purpose (the arrivals, a robot's jobs, its network) has a stream of its own, so that more of one thing
does not change another.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import accumulate
from math import log, sqrt

import numpy as np

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

Rng = np.random.Generator
Draw = Callable[[], float]  # in seconds


def stream(seed: int, purpose: str, number: int = 0) -> Rng:
    """`number` of several that are for the same."""
    key = (zlib.crc32(purpose.encode()), number)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def draw_from(distribution: Distribution, rng: Rng) -> Draw:
    match distribution:
        case Constant(value=value):
            return lambda: value
        case Exponential(mean=mean):
            return lambda: rng.exponential(mean)
        case Erlang(phases=phases, mean=mean):
            return lambda: rng.gamma(phases, mean / phases)
        case Hyperexponential(means=means):
            which = choice_of(distribution.probabilities, rng)
            return lambda: rng.exponential(means[which()])
        case Lognormal(mean=mean, scv=scv):
            variance = log(1 + scv)
            return lambda: rng.lognormal(log(mean) - variance / 2, sqrt(variance))
        case Uniform(low=low, high=high):
            return lambda: rng.uniform(low, high)
        case Empirical(values=values, weights=weights):
            which = choice_of(weights or [1.0] * len(values), rng)
            return lambda: values[which()]


def choice_of(weights: list[float], rng: Rng) -> Callable[[], int]:
    """Draws an index, each as probable as its weight is heavy; never one whose weight is 0."""
    sums = np.array(list(accumulate(weights)))
    return lambda: int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
