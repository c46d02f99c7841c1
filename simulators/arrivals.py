"""When jobs arrive whose rate is known: seconds from the beginning, in order, by the arrivals' seed alone.

An open model: what the server does changes nothing. The stages of a scenario multiply the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import pi, sin, sqrt

from fleet.errors import Misuse
from simulators.draws import Rng
from simulators.scenario import (
    Arrivals,
    BatchArrivals,
    ClosedArrivals,
    ConstantArrivals,
    MmppArrivals,
    PoissonArrivals,
    RenewalArrivals,
    Segment,
    SinusoidArrivals,
    TraceArrivals,
)


def arrival_times(arrivals: Arrivals, load: list[Segment], rng: Rng) -> Iterator[tuple[float, int]]:
    """(when, how many), of arrivals that have a rate. Raises Misuse for others."""
    match arrivals:
        case ConstantArrivals(rate=rate):
            times = _constant(rate, load)
        case PoissonArrivals(rate=rate):
            times = _thinned(rate, lambda at_s: rate, load, rng)
        case SinusoidArrivals(rate=rate, amplitude=amplitude, period=period):
            times = _thinned(
                rate * (1 + amplitude),
                lambda at_s: rate * (1 + amplitude * sin(2 * pi * at_s / period)),
                load,
                rng,
            )
        case MmppArrivals(rates=rates):
            times = _thinned(max(rates), _modulated(arrivals, rng), load, rng)
        case BatchArrivals(rate=rate, smallest=smallest, largest=largest):
            for at_s in _thinned(rate, lambda at_s: rate, load, rng):
                yield at_s, int(rng.integers(smallest, largest, endpoint=True))
            return
        case RenewalArrivals() | TraceArrivals() | ClosedArrivals():
            raise Misuse(f"{arrivals.kind} arrivals have no rate")
    yield from ((at_s, 1) for at_s in times)


def _constant(rate: float, load: list[Segment]) -> Iterator[float]:
    """The k-th when the load so far adds up to k / rate, the first at once."""
    number, done = 0, 0.0
    for segment in load:
        lasts_s = segment.ends_s - segment.begins_s
        area = (segment.load + segment.load_after) / 2 * lasts_s
        while number / rate < done + area:
            yield segment.begins_s + _when(number / rate - done, segment, lasts_s)
            number += 1
        done += area


def _when(area: float, segment: Segment, lasts_s: float) -> float:
    """After how long the load of a segment adds up to `area`: a root of load t + slope t^2 / 2 = area, in the
    form that is also good for a slope of 0."""
    slope = (segment.load_after - segment.load) / lasts_s
    root = sqrt(max(0.0, segment.load**2 + 2 * slope * area))
    return 0.0 if area <= 0 else 2 * area / (segment.load + root)


def _thinned(
    most: float, rate_at: Callable[[float], float], load: list[Segment], rng: Rng
) -> Iterator[float]:
    """Poisson at rate_at(t) times the load, by Lewis and Shedler (1979): of a process that is always fast
    enough, each is kept with the probability that it should be there. `rate_at` is asked in order."""
    for segment in load:
        fastest = most * max(segment.load, segment.load_after)
        at_s = segment.begins_s
        while fastest > 0:
            at_s += rng.exponential(1 / fastest)
            if at_s >= segment.ends_s:
                break
            if rng.random() * fastest < rate_at(at_s) * segment.load_at(at_s):
                yield at_s


def _modulated(arrivals: MmppArrivals, rng: Rng) -> Callable[[float], float]:
    """The rate that holds at a time, asked for in order. One state after the other, and round again."""
    rates, stays = arrivals.rates, arrivals.mean_stays
    state, until_s = 0, float(rng.exponential(stays[0]))

    def rate_at(at_s: float) -> float:
        nonlocal state, until_s
        while at_s >= until_s:
            state = (state + 1) % len(rates)
            until_s += rng.exponential(stays[state])
        return rates[state]

    return rate_at
