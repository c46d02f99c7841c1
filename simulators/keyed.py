"""Random numbers by what they are for: the third attempt of job 7 meets the same number whatever was drawn
before it, so that two policies meet the same jobs.

A number is a function of a key (of the seed), a purpose, the number of the job or robot that it is for, and
how often that has asked: Philox 4x32 with ten rounds, by Salmon, Moraes, Dror and Shaw (2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate
from math import cos, exp, fsum, log, pi, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
from simulators.jit import compiled, inlined

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Key = NDArray[np.uint64]  # two of 32 bits

NANO = 1e9
LONGEST = 2.0**61  # nanoseconds, 73 years: two of them fit into 64 bits
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
LEFT_OUT = np.uint64(11)  # of 64 bits a float holds 53
STEP = 2.0**-53
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
ROUNDS = 10
MORE = 256  # purposes are below; a draw that needs more than one block counts them above


class Purpose(IntEnum):
    ARRIVAL = 1
    CLASS = 2
    SERVICE = 3
    PATIENCE = 4
    JOIN = 5
    FAILURE = 6
    BACKOFF = 7
    PICK = 8
    UP = 9
    REPAIR = 10
    THINK = 11


class Kind(IntEnum):
    CONSTANT = 0
    EXPONENTIAL = 1
    ERLANG = 2
    HYPEREXPONENTIAL = 3
    LOGNORMAL = 4
    UNIFORM = 5
    EMPIRICAL = 6


class Table(NamedTuple):
    """Distributions: of each its kind, two figures, and from where to where its points are; of each point its
    value, and the sum of the probabilities up to it."""

    rows: Floats  # [distribution, 5]
    points: Floats  # [2, point]


def key_of(seed: int) -> Key:
    """Seeds that differ by one give keys that have nothing in common."""
    return np.random.SeedSequence(seed).generate_state(2, np.uint32).astype(np.uint64)


def table_of(distributions: Sequence[Distribution]) -> Table:
    rows: list[list[float]] = []
    values: list[float] = []
    sums: list[float] = []
    for each in distributions:
        kind, a, b, its_values, its_sums = _row(each)
        rows.append([kind, a, b, len(values), len(values) + len(its_values)])
        values += its_values
        sums += its_sums
    return Table(np.array(rows, dtype=np.float64), np.array([values, sums], dtype=np.float64))


def _row(distribution: Distribution) -> tuple[Kind, float, float, list[float], list[float]]:
    match distribution:
        case Constant(value=value):
            return Kind.CONSTANT, value, 0.0, [], []
        case Exponential(mean=mean):
            return Kind.EXPONENTIAL, mean, 0.0, [], []
        case Erlang(phases=phases, mean=mean):
            return Kind.ERLANG, mean / phases, float(phases), [], []
        case Hyperexponential(means=means, probabilities=probabilities):
            return Kind.HYPEREXPONENTIAL, 0.0, 0.0, means, sums_of(probabilities)
        case Lognormal(mean=mean, scv=scv):
            variance = log(1 + scv)
            return Kind.LOGNORMAL, log(mean) - variance / 2, sqrt(variance), [], []
        case Uniform(low=low, high=high):
            return Kind.UNIFORM, low, high - low, [], []
        case Empirical(values=values, weights=weights):
            return Kind.EMPIRICAL, 0.0, 0.0, values, sums_of(weights or [1.0] * len(values))


def sums_of(weights: Sequence[float]) -> list[float]:
    """As shares of all, up to 1."""
    whole = fsum(weights)
    return [part / whole for part in accumulate(weights)]


# -- compiled from here


@inlined
def block(key, number, nth, purpose):
    """Four times 32 bits, each in 64. All arguments are np.uint64."""
    key0, key1 = key[0], key[1]
    one, two, three, four = number & LOW, number >> HALF, nth, purpose
    for _ in range(ROUNDS):
        left, right = MULTIPLIERS[0] * one, MULTIPLIERS[1] * three
        one, two, three, four = (
            (right >> HALF) ^ two ^ key0,
            right & LOW,
            (left >> HALF) ^ four ^ key1,
            left & LOW,
        )
        key0, key1 = (key0 + WEYL[0]) & LOW, (key1 + WEYL[1]) & LOW
    return one, two, three, four


@inlined
def uniforms(key, purpose, number, nth):
    """Two, each above 0 and below 1."""
    one, two, three, four = block(key, np.uint64(number), np.uint64(nth), np.uint64(purpose))
    first = (np.float64(((one << HALF) | two) >> LEFT_OUT) + 0.5) * STEP
    second = (np.float64(((three << HALF) | four) >> LEFT_OUT) + 0.5) * STEP
    return min(first, 1.0 - STEP), min(second, 1.0 - STEP)


@inlined
def pick(sums, begins, ends, share):
    """The first place from `begins` on whose sum is above `share`: never one whose weight is 0."""
    low, high = begins, ends - 1
    while low < high:
        middle = (low + high) // 2
        if sums[middle] > share:
            high = middle
        else:
            low = middle + 1
    return low


def add_up(begins_ns: int, gaps: Ints) -> Ints:
    """When each comes, if these are the times between them; never later than numbers go."""
    times = np.empty(len(gaps), np.int64)
    _add_up(begins_ns, gaps, times)
    return times


@compiled
def _add_up(now_ns, gaps, times):
    for place in range(len(gaps)):
        now_ns = min(now_ns + gaps[place], np.int64(2 * LONGEST))
        times[place] = now_ns


@compiled
def pick_all(sums, shares, found):
    for place in range(len(shares)):
        found[place] = pick(sums, 0, len(sums), shares[place])


@compiled
def erlang(key, purpose, number, nth, phase, phases):
    """The sum of `phases` exponential times, each of mean `phase`."""
    total = 0.0
    for pair in range((phases + 1) // 2):
        first, second = uniforms(key, purpose + MORE * pair, number, nth)
        total -= log(first)
        if 2 * pair + 1 < phases:
            total -= log(second)
    return total * phase


@inlined
def made_ns(rows, points, which, key, purpose, number, nth, first, second):
    """Of the distribution in row `which`, in whole nanoseconds, from the two uniform numbers that this
    purpose has."""
    kind, a, b = np.int64(rows[which, 0]), rows[which, 1], rows[which, 2]
    if kind == Kind.EXPONENTIAL:
        drawn = -a * log(first)
    elif kind == Kind.CONSTANT:
        drawn = a
    elif kind == Kind.ERLANG:
        drawn = erlang(key, purpose, number, nth, a, np.int64(b))
    elif kind == Kind.LOGNORMAL:  # Box and Muller (1958)
        drawn = exp(a + b * sqrt(-2.0 * log(first)) * cos(2.0 * pi * second))
    elif kind == Kind.UNIFORM:
        drawn = a + b * first
    else:
        place = pick(points[1], np.int64(rows[which, 3]), np.int64(rows[which, 4]), second)
        drawn = points[0, place] * (-log(first) if kind == Kind.HYPEREXPONENTIAL else 1.0)
    return np.int64(min(drawn * NANO + 0.5, LONGEST))


@inlined
def sample_ns(rows, points, which, key, purpose, number, nth):
    """Of the distribution in row `which`, in whole nanoseconds."""
    first, second = uniforms(key, purpose, number, nth)
    return made_ns(rows, points, which, key, purpose, number, nth, first, second)


@compiled
def fill_uniforms(key, purpose, number, ones, twos):
    """Of `number` and those that follow it. By itself this is a loop that processors do many steps of at
    once."""
    for place in range(len(ones)):
        ones[place], twos[place] = uniforms(key, purpose, number + place, 0)


@compiled
def fill_ns(rows, points, which, key, purpose, number, ones, twos, found):
    """Of `number` and those that follow it; `which` is the row of each."""
    for place in range(len(found)):
        found[place] = made_ns(
            rows, points, which[place], key, purpose, number + place, 0, ones[place], twos[place]
        )
