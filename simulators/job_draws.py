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
from simulators.jit import compiled
from simulators.keyed import NANO, Ints, Purpose, key_of, pick, sample_ns, sums_of, table_of, uniforms
from simulators.scenario import Jobs, PoissonArrivals, RenewalArrivals, Segment, TraceArrivals
from simulators.trace import Trace, read_trace

FOREVER_NS = 2**62
BLOCK = 4_096


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
        drawn = Drawn(*(np.empty(count, np.int64) for _ in Drawn._fields))
        _draw(self.key, self._shares, *self.work, *self.patience, self._patient, first, *drawn)
        if self._trace is not None:
            _as_it_was(self._trace, first - 1, drawn)
        return drawn


def _as_it_was(trace: Trace, begins: int, drawn: Drawn) -> None:
    for told, column in ((trace.work_ns, drawn.work_ns), (trace.klass, drawn.klass)):
        if told is not None:
            these = told[begins : begins + len(column)]
            column[: len(these)] = these


class Thinking:
    """How long users think, in nanoseconds: after their last job, or before the first."""

    def __init__(self, think: Distribution, seed: int) -> None:
        self.key, self.table = key_of(seed), table_of([think])

    def after(self, number: int) -> int:
        return int(sample_ns(*self.table, 0, self.key, Purpose.THINK, number, 0))

    def before_the_first(self, user: int) -> int:
        return int(sample_ns(*self.table, 0, self.key, Purpose.THINK, 0, user))


@compiled
def _draw(key, shares, work, works, patience, patiences, patient, first, klass, work_ns, patience_ns):
    for place in range(len(klass)):
        number = first + place
        which = 0
        if len(shares) > 1:
            share, _ = uniforms(key, Purpose.CLASS, number, 0)
            which = pick(shares, 0, len(shares), share)
        klass[place] = which
        work_ns[place] = sample_ns(work, works, which, key, Purpose.SERVICE, number, 0)
        patience_ns[place] = FOREVER_NS
        if not patient[which]:
            patience_ns[place] = max(
                1, sample_ns(patience, patiences, which, key, Purpose.PATIENCE, number, 0)
            )


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
    key, table = key_of(seed), table_of([gap])
    first, came_ns = 1, 0
    while came_ns < ends_ns:
        times = np.empty(BLOCK, np.int64)
        _add_up(key, *table, first, came_ns, times)
        first, came_ns = first + BLOCK, int(times[-1])
        yield times if came_ns < ends_ns else times[: np.searchsorted(times, ends_ns)]


@compiled
def _add_up(key, rows, points, first, came_ns, times):
    for place in range(len(times)):
        came_ns += sample_ns(rows, points, 0, key, Purpose.ARRIVAL, first + place, 0)
        times[place] = came_ns
