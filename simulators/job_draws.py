"""What the jobs of a scenario are, by their numbers: class, work and patience, and when they come if that is
a matter of the times between them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simulators.arrivals import arrival_times
from simulators.distributions import Constant, Distribution, Exponential
from simulators.draws import stream
from simulators.keyed import (
    NANO,
    Floats,
    Ints,
    Purpose,
    Table,
    add_up,
    fill_ns,
    fill_uniforms,
    key_of,
    pick_all,
    sample_ns,
    sums_of,
    table_of,
)
from simulators.scenario import (
    BatchArrivals,
    ClosedArrivals,
    ConstantArrivals,
    Jobs,
    MmppArrivals,
    PoissonArrivals,
    RenewalArrivals,
    Segment,
    SinusoidArrivals,
    TraceArrivals,
)
from simulators.trace import Trace, read_trace

FOREVER_NS = 2**62
BLOCK = 16_384


class Drawn(NamedTuple):
    """Of some jobs that follow each other: the place of its class, how long it takes a robot of speed 1, and
    how long it waits."""

    klass: Ints
    work_ns: Ints
    patience_ns: Ints


class JobDraws:
    """Jobs are numbered from 1."""

    def __init__(self, jobs: Jobs, seed: int, trace: Trace | None = None) -> None:
        classes = list(jobs.classes.values())
        self.key = key_of(seed)
        self.work = table_of([each.service for each in classes])
        self.patience = table_of([each.patience or Constant.model_construct(value=0.0) for each in classes])
        self._shares = np.array(sums_of([each.weight for each in classes]))
        self._trace = trace
        self._patient = np.array([each.patience is None for each in classes])

    def of(self, first: int, count: int) -> Drawn:
        """Of `count` jobs from number `first` on."""
        klass = self._classes(first, count)
        if self._trace is not None:
            _as_it_was(self._trace.klass, first, klass)
        work_ns = self._drawn(self.work, klass, Purpose.SERVICE, first)
        if self._trace is not None:
            _as_it_was(self._trace.work_ns, first, work_ns)
        return Drawn(klass, work_ns, self._patience(klass, first))

    def _classes(self, first: int, count: int) -> Ints:
        if len(self._shares) == 1:
            return np.zeros(count, np.int64)
        shares, _ = self._uniforms(Purpose.CLASS, first, count)
        klass = np.empty(count, np.int64)
        pick_all(self._shares, shares, klass)
        return klass

    def _drawn(self, table: Table, which: Ints, purpose: Purpose, first: int) -> Ints:
        found = np.empty(len(which), np.int64)
        fill_ns(
            *table, which, self.key, int(purpose), first, *self._uniforms(purpose, first, len(which)), found
        )
        return found

    def _patience(self, klass: Ints, first: int) -> Ints:
        if self._patient.all():
            return np.full(len(klass), FOREVER_NS)
        found = np.maximum(1, self._drawn(self.patience, klass, Purpose.PATIENCE, first))
        return np.where(self._patient[klass], FOREVER_NS, found)

    def _uniforms(self, purpose: Purpose, first: int, count: int) -> tuple[Floats, Floats]:
        ones, twos = np.empty(count), np.empty(count)
        fill_uniforms(self.key, int(purpose), first, ones, twos)
        return ones, twos


def _as_it_was(told: Ints | None, first: int, column: Ints) -> None:
    """What a trace says, from job `first` on, takes the place of what was drawn."""
    if told is not None:
        these = told[first - 1 : first - 1 + len(column)]
        column[: len(these)] = these


class Thinking:
    """How long users think, in nanoseconds: after their last job, or before the first."""

    def __init__(self, think: Distribution, seed: int) -> None:
        self.key, self.table = key_of(seed), table_of([think])

    def after(self, number: int) -> int:
        return int(sample_ns(*self.table, 0, self.key, Purpose.THINK, number, 0))

    def before_the_first(self, user: int) -> int:
        return int(sample_ns(*self.table, 0, self.key, Purpose.THINK, 0, user))


# -- when they come


def open_model(jobs: Jobs, load: list[Segment], seed: int, folder: Path) -> tuple[JobDraws, Iterator[Ints]]:
    """Jobs, and when they come, in blocks of nanoseconds. `folder` is that of the scenario, where a trace
    lies. Raises Misuse for a trace that cannot be read, and for closed arrivals, which have no times of their
    own."""
    ends_s = load[-1].ends_s
    if isinstance(jobs.arrivals, TraceArrivals):
        trace = read_trace(folder / jobs.arrivals.file, list(jobs.classes), ends_s)
        return JobDraws(jobs, seed, trace), iter([trace.came_ns])
    gap = gap_of(jobs.arrivals, load)
    if gap is not None:
        return JobDraws(jobs, seed), renewal_times(gap, seed, round(ends_s * NANO))
    return JobDraws(jobs, seed), _blocks(arrival_times(jobs.arrivals, load, stream(seed, "arrivals")))


def _blocks(times: Iterator[tuple[float, int]]) -> Iterator[Ints]:
    each = (round(at_s * NANO) for at_s, count in times for _ in range(count))
    while len(block := np.fromiter(islice(each, BLOCK), np.int64)):
        yield block


def most_per_s(jobs: Jobs) -> float | None:
    """Jobs that come a second on average, at their fastest; None if that hangs on a file."""
    match jobs.arrivals:
        case PoissonArrivals(rate=rate) | ConstantArrivals(rate=rate):
            return rate
        case RenewalArrivals(between=between):
            return 1 / between.mean_s
        case MmppArrivals(rates=rates):
            return max(rates)
        case SinusoidArrivals(rate=rate, amplitude=amplitude):
            return rate * (1 + amplitude)
        case BatchArrivals(rate=rate, largest=largest):
            return rate * largest
        case ClosedArrivals(users=users, think=think):
            return users / (think.mean_s + min(each.service.mean_s for each in jobs.classes.values()))
        case _:
            return None


def gap_of(arrivals: object, load: list[Segment]) -> Distribution | None:
    """Of arrivals whose times between one and the next are independent and all alike; else None."""
    if any(each.load != 1.0 or each.load_after != 1.0 for each in load):
        return None
    match arrivals:
        case PoissonArrivals(rate=rate):
            return Exponential.model_construct(kind="exponential", mean=1 / rate)
        case RenewalArrivals(between=between):
            return between
    return None


def renewal_times(gap: Distribution, seed: int, ends_ns: int) -> Iterator[Ints]:
    """In blocks, up to `ends_ns`."""
    purpose = int(Purpose.ARRIVAL)  # numba takes longer to look at an enum than to draw a hundred jobs
    key, table, which = key_of(seed), table_of([gap]), np.zeros(BLOCK, np.int64)
    ones, twos, gaps = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK, np.int64)
    first, came_ns = 1, 0
    while came_ns < ends_ns:
        fill_uniforms(key, purpose, first, ones, twos)
        fill_ns(*table, which, key, purpose, first, ones, twos, gaps)
        times = add_up(came_ns, gaps)
        first, came_ns = first + BLOCK, int(times[-1])
        yield times if came_ns < ends_ns else times[: np.searchsorted(times, ends_ns)]
