"""What a simulation's output says, and how sure that is.

Levels are of confidence, 0.95 unless said. Series are in the order of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from fleet.errors import Misuse

Floats = NDArray[np.float64]
LEVEL = 0.95
MSER_BATCH = 5


class Interval(msgspec.Struct, frozen=True):
    """`low` to `high` holds the true value with the probability that was asked for; `error` is the standard
    error of the estimate."""

    estimate: float
    low: float
    high: float
    error: float

    def z(self, truth: float) -> float:
        """How many standard errors the estimate is from `truth`."""
        if self.error == 0:
            return 0.0 if self.estimate == truth else inf
        return (self.estimate - truth) / self.error


def _about(mean: float, error: float, freedom: float, level: float) -> Interval:
    """By Student's t."""
    width = error * float(stats.t.ppf((1 + level) / 2, freedom))
    return Interval(mean, mean - width, mean + width, error)


def _series(values: Sequence[float] | Floats, least: int) -> Floats:
    series = np.asarray(values, dtype=np.float64)
    if len(series) < least:
        raise Misuse(f"it takes {least} values at least, not {len(series)}")
    if not np.all(np.isfinite(series)):
        raise Misuse("some of the values are no numbers")
    return series


def mean_of(values: Sequence[float] | Floats, level: float = LEVEL) -> Interval:
    """Of independent values, such as those of replications: Student's t."""
    series = _series(values, 2)
    error = float(np.std(series, ddof=1)) / sqrt(len(series))
    return _about(float(np.mean(series)), error, len(series) - 1, level)


def difference_of(
    first: Sequence[float] | Floats, second: Sequence[float] | Floats, level: float = LEVEL
) -> Interval:
    """Of `second` minus `first`, pair by pair: what both met alike (common random numbers) falls out."""
    one, other = _series(first, 2), _series(second, 2)
    if len(one) != len(other):
        raise Misuse(f"pairs are of as many values: {len(one)} and {len(other)}")
    return mean_of(other - one, level)


def percentile_of(values: Sequence[float] | Floats, percent: float, level: float = LEVEL) -> Interval:
    """Of independent values, whatever their distribution: between two order statistics, by the binomial
    distribution of how many are below. Conover (1999), section 3.2. With too few values for the level the
    interval ends at the smallest or largest."""
    series = np.sort(_series(values, 1))
    share, count = percent / 100, len(series)
    if not 0 < share < 1:
        raise Misuse(f"a percentile is between 0 and 100, not {percent:g}")
    low = int(stats.binom.ppf((1 - level) / 2, count, share))
    high = int(stats.binom.ppf((1 + level) / 2, count, share))
    least, most = float(series[max(0, low - 1)]), float(series[min(count - 1, high)])
    error = (most - least) / 2 / float(stats.norm.ppf((1 + level) / 2))
    return Interval(float(np.quantile(series, share)), least, most, error)


def batch_means(values: Sequence[float] | Floats, batch: int) -> Floats:
    """Of `batch` values each; what is left over at the end is left out."""
    series = _series(values, batch)
    whole = len(series) // batch
    return np.asarray(series[: whole * batch].reshape(whole, batch).mean(axis=1))


def warm_up(values: Sequence[float] | Floats) -> int:
    """How many values at the beginning are of a system that was still filling: MSER-5, by White, Cobb and
    Spratt (2000). As many as make the standard error of the mean of the others, in batches of five,
    smallest; half the series at most."""
    return mser(batch_means(values, MSER_BATCH)) * MSER_BATCH


def mser(values: Sequence[float] | Floats) -> int:
    """The same for values that are means of batches already."""
    means = _series(values, 1)
    size = float(np.mean(np.abs(means)))
    means = means - np.mean(means)
    count = len(means)
    # Of means[d:], for every d at once: the sum of squares about their own mean.
    sums = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum(means[::-1] ** 2)[::-1]
    left = count - np.arange(count)
    spread = squares - sums**2 / left
    statistic = np.where(spread > 1e-12 * size**2, spread, 0.0) / left.astype(np.float64) ** 2
    return int(np.argmin(statistic[: count // 2 + 1]))


def steady_mean(values: Sequence[float] | Floats, batches: int = 32, level: float = LEVEL) -> Interval:
    """Of a series whose values hang together, such as the waits of one long run, by overlapping batch means:
    Meketon and Schmeiser (1984). `batches` is how many of them fit side by side; their variance has 1.5
    times as many degrees of freedom."""
    series = _series(values, 2 * batches)
    count, size = len(series), len(series) // batches
    sums = np.concatenate([[0.0], np.cumsum(series)])
    means = (sums[size:] - sums[:-size]) / size
    mean = float(np.mean(series))
    spread = float(np.sum((means - mean) ** 2))
    variance = count * size / ((count - size + 1) * (count - size)) * spread / count
    return _about(mean, sqrt(variance), 1.5 * (batches - 1), level)


def steady_ratio(
    parts: Sequence[float] | Floats, wholes: Sequence[float] | Floats, batches: int = 32, level: float = LEVEL
) -> Interval:
    """Of the sum of `parts` over that of `wholes`, two series through time: by overlapping batch means of how
    far each part is from what the ratio makes of its whole. Bratley, Fox and Schrage (1987), section 3.3."""
    numerators, denominators = _series(parts, 2 * batches), _series(wholes, 2 * batches)
    if not denominators.sum():
        raise Misuse("there is nothing to have a share of")
    ratio = float(numerators.sum() / denominators.sum())
    off = steady_mean((numerators - ratio * denominators) / denominators.mean(), batches, level)
    return Interval(ratio, ratio + off.low, ratio + off.high, off.error)
