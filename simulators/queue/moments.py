"""Moments and transforms of the distributions of a scenario."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, fsum

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
from simulators.queue.theory import Moments


def moments_of(distribution: Distribution, speed: float = 1.0) -> Moments:
    """Of the time that a robot of that `speed` needs."""
    found = _moments(distribution)
    return Moments(found.mean / speed, found.second / speed**2, found.third / speed**3)


def _moments(distribution: Distribution) -> Moments:
    match distribution:
        case Constant(value=value):
            return _constant(value)
        case Exponential(mean=mean):
            return _exponential(mean)
        case Erlang(phases=k, mean=mean):
            return Moments(mean, mean**2 * (k + 1) / k, mean**3 * (k + 1) * (k + 2) / k**2)
        case Hyperexponential(means=means, probabilities=probabilities):
            return mixed(probabilities, list(map(_exponential, means)))
        case Lognormal(mean=mean, scv=scv):
            return Moments(mean, mean**2 * (1 + scv), mean**3 * (1 + scv) ** 3)
        case Uniform(low=low, high=high):
            mean, half = (low + high) / 2, (high - low) / 2
            return Moments(mean, mean**2 + half**2 / 3, mean**3 + mean * half**2)
        case Empirical(values=values, weights=weights):
            weights = weights or [1.0] * len(values)
            shares = [weight / fsum(weights) for weight in weights]
            return mixed(shares, list(map(_constant, values)))


def _constant(value: float) -> Moments:
    return Moments(value, value**2, value**3)


def _exponential(mean: float) -> Moments:
    return Moments(mean, 2 * mean**2, 6 * mean**3)


def mixed(shares: Sequence[float], parts: Sequence[Moments]) -> Moments:
    """Of a time that is this or that, each with its share."""

    def mean_of(power: str) -> float:
        return fsum(share * getattr(part, power) for share, part in zip(shares, parts, strict=True))

    return Moments(mean_of("mean"), mean_of("second"), mean_of("third"))


def transform_of(distribution: Distribution) -> Callable[[float], float] | None:
    """Laplace and Stieltjes': s to E[e^(-s T)]; None for a distribution that has none in closed form."""
    match distribution:
        case Constant(value=value):
            return lambda s: exp(-s * value)
        case Exponential(mean=mean):
            return lambda s: 1 / (1 + s * mean)
        case Erlang(phases=k, mean=mean):
            return lambda s: float((1 + s * mean / k) ** -k)
        case Hyperexponential(means=means, probabilities=shares):
            return lambda s: fsum(p / (1 + s * mean) for p, mean in zip(shares, means, strict=True))
        case Uniform(low=low, high=high) if high > low:
            return lambda s: (exp(-s * low) - exp(-s * high)) / (s * (high - low)) if s else 1.0
        case _:
            return None
