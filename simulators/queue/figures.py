"""What is kept of a replication, and what it says by the names of queueing theory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.keyed import NANO, Floats
from simulators.queue.kernels.tally import FINE, SHORTEST, Cell, Clock, Tally

Figures = dict[str, float]
STATES = [Cell.WAITING, Cell.WORKING, Cell.HELD]
# `W` is of those that were served; `Wq` and `P_wait` are of all that were let in and left.
RATIOS = {
    "W": (Cell.SERVED_STAY, Cell.SERVED),
    "W_squared": (Cell.SERVED_STAY_SQUARED, Cell.SERVED),
    "Wq": (Cell.WAIT, Cell.LEFT),
    "Wq_squared": (Cell.WAIT_SQUARED, Cell.LEFT),
    "P_wait": (Cell.DELAYED, Cell.LEFT),
    "P_block": (Cell.BLOCKED, Cell.CAME),
    "P_balk": (Cell.BALKED, Cell.CAME),
    "P_abandon": (Cell.ABANDONED, Cell.CAME),
    "P_dead_letter": (Cell.FAILED, Cell.CAME),
}
SHARES = np.array([*range(1, 100), 99.5, 99.9, 99.99]) / 100
TOLD = (50, 95, 99)  # percent


class Replication:
    """`batch_size` is how many jobs that followed each other are in one of its batches. `worked` and `done`:
    of each robot, after a warm-up that was given, the share of its time and how many jobs."""

    def __init__(self, tally: Tally) -> None:
        clock = tally.clock
        self._begins_ns, self._width_ns = int(clock[Clock.WARM_UP]), int(clock[Clock.WIDTH])
        self._ends_ns = int(clock[Clock.END])
        self.batch_size = int(clock[Clock.BATCH_SIZE])
        last = np.flatnonzero(tally.batches[1])[-1:].sum()  # which may not be full
        self._batches = tally.batches[:, : int(last)]
        self.left = int(tally.batches[1].sum())  # jobs that were let in and left again
        self.worked = tally.robots[0] / (self._ends_ns - self._begins_ns)
        self.done = tally.robots[1]
        # What there is from each segment on.
        self._cells = np.cumsum(tally.cells[::-1], axis=0)[::-1]
        self._quantiles = _quantiles_s(tally)

    @property
    def jobs(self) -> int:
        return int(self._cells[0, :, Cell.CAME].sum())

    def batches_of(self, size: int) -> tuple[Floats, Floats]:
        """The mean waits of so many jobs each, in the order of arrival, and when the first of each came; 0
        for those of which nobody left. `size` is a power of two times our own."""
        fold = size // self.batch_size
        whole = self._batches.shape[1] // fold * fold
        sums, counts, begins_ns = self._batches[:, :whole].reshape(3, -1, fold)
        return sums.sum(axis=1) / np.maximum(counts.sum(axis=1), 1), begins_ns.min(axis=1)

    def segment_after(self, at_ns: float) -> int:
        """The first that begins then or later."""
        return 1 + int(np.ceil(max(0.0, at_ns - self._begins_ns) / self._width_ns))

    def begins_s(self, segment: int) -> float:
        return (self._begins_ns + (segment - 1) * self._width_ns) / NANO

    def figures(self, first: int, slots: int) -> Figures:
        """From segment `first` on. `slots` is how many jobs the robots can do at once. What did not happen
        has no figure."""
        cells, lasts_ns = self._cells[first].sum(axis=0), self._lasts_ns(first)
        found = _figures(cells, lasts_ns) | {
            "utilisation": cells[Cell.WORKING] / lasts_ns / slots,
            "availability": 1 - cells[Cell.DOWN] / lasts_ns / slots,
        }
        for name, quantiles in zip(("Wq", "W"), self._quantiles[:, first], strict=True):
            if not np.isnan(quantiles[0]):
                found |= {f"{name}_p{percent}": quantiles[percent - 1] for percent in TOLD}
        return {name: float(value) for name, value in found.items()}

    def through_time(self, first: int, slots: int) -> dict[str, tuple[Floats, Floats]]:
        """Of each metric but the percentiles, in one segment after the other from `first` on: what it counts
        or sums, and over what. The metric is the one over the other."""
        cells = -np.diff(self._cells[first:].sum(axis=1), axis=0)  # but for the last, which ends early
        lasts_ns = np.full(len(cells), float(self._width_ns))
        found = {
            "L": (cells[:, STATES].sum(axis=1), lasts_ns),
            "Lq": (cells[:, Cell.WAITING], lasts_ns),
            "throughput": (cells[:, Cell.SERVED] * NANO, lasts_ns),
            "utilisation": (cells[:, Cell.WORKING], lasts_ns * slots),
            "availability": (lasts_ns * slots - cells[:, Cell.DOWN], lasts_ns * slots),
        }
        return found | {name: (cells[:, part], cells[:, whole]) for name, (part, whole) in RATIOS.items()}

    def of_classes(self, first: int, names: Sequence[str]) -> dict[str, Figures]:
        lasts_ns = self._lasts_ns(first)
        return {
            name: {key: float(value) for key, value in _figures(cells, lasts_ns).items()}
            for name, cells in zip(names, self._cells[first], strict=True)
        }

    def quantiles_s(self, first: int) -> Floats:
        """Of waits and of stays, at SHARES; nan if there were none."""
        return self._quantiles[:, first]

    def in_line(self) -> Floats:
        """Jobs that waited, on average, in one segment after the other."""
        return self._through_time(self._cells[1:, :, Cell.WAITING].sum(axis=1))

    def there(self) -> Floats:
        """Jobs that were there."""
        return self._through_time(self._cells[1:, :, STATES].sum(axis=(1, 2)))

    def _through_time(self, areas: Floats) -> Floats:
        ends_ns = np.minimum(self._begins_ns + np.arange(1, len(areas) + 1) * self._width_ns, self._ends_ns)
        lasts_ns = np.diff(ends_ns, prepend=self._begins_ns)
        return np.asarray(-np.diff(areas, append=0.0) / np.maximum(lasts_ns, 1))

    def little(self, first: int) -> tuple[float, float]:
        """Jobs there on average; and what would be, by how many were let in and left, and how long these
        stayed."""
        cells, lasts_ns = self._cells[first].sum(axis=0), self._lasts_ns(first)
        return float(cells[STATES].sum() / lasts_ns), float(cells[Cell.STAY] * NANO / lasts_ns)

    def _lasts_ns(self, first: int) -> float:
        return float(self._ends_ns - self._begins_ns - (first - 1) * self._width_ns)


def _figures(cells: Floats, lasts_ns: float) -> Figures:
    """`W` is of those that were served; `Wq` and `P_wait` are of all that were let in and left, and count all
    that a job waited, from its arrival to its end."""
    areas = cells[STATES] / lasts_ns
    found = {"L": areas.sum(), "Lq": areas[0], "throughput": cells[Cell.SERVED] / lasts_ns * NANO}
    for name, (part, whole) in RATIOS.items():
        if cells[whole]:
            found[name] = cells[part] / cells[whole]
    return found


def _quantiles_s(tally: Tally) -> Floats:
    """[waits and stays, from this segment on, share]: exact to a bucket, which is 1.6 %, and within that in a
    straight line."""
    used = np.flatnonzero(tally.times.any(axis=(0, 1)))
    found = np.full((2, len(tally.cells), len(SHARES)), np.nan)
    if not len(used):
        return found
    low_s, high_s = _edge_s(used), _edge_s(used + 1)
    counts = np.cumsum(tally.times[:, ::-1, used], axis=1, dtype=np.int64)[:, ::-1]
    sums = np.cumsum(counts, axis=2)
    for which in range(2):
        for segment in range(len(tally.cells)):
            total = sums[which, segment, -1]
            if total:
                ranks = SHARES * total
                at = np.searchsorted(sums[which, segment], ranks)
                there = counts[which, segment, at]
                part = (ranks - sums[which, segment, at] + there) / there
                found[which, segment] = low_s[at] + part * (high_s - low_s)[at]
    return found


def _edge_s(buckets: NDArray[np.integer[Any]]) -> Floats:
    """Where a bucket begins; the first holds what counts as no time, and ends there, too."""
    octave, step = np.divmod(np.maximum(buckets - 1, 0), 1 << FINE)
    return np.where(buckets <= 1, 0.0, 2.0 ** (octave + SHORTEST) * (1 + step / (1 << FINE)) / NANO)
