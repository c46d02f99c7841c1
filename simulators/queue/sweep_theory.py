"""What theory says between the points of a sweep, so that it is drawn as the curve that it is."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import polars as pl

from fleet.errors import Misuse
from simulators.queue.experiment import Sweep, table_of
from simulators.queue.grid import Axis, Grid
from simulators.queue.recognise import recognised
from simulators.queue.variation import Changes, Value, varied

FINE = 80  # points of a curve
MOST = 2_000  # points of all curves together: each is a scenario of its own


def theory_between(sweep: Sweep) -> pl.DataFrame:
    """A row per point and metric: a column for each axis, then `metric` and `theory`. The points are along
    the first axis, at every combination of the others; none if it has no numbers, or theory no figures."""
    first, *others = sweep.grid.axes
    steps = _steps(sweep, first, min(FINE, MOST // prod(len(axis.values) for axis in others)))
    grid = Grid((Axis(first.name, steps or first.values), *others))
    rows: list[dict[str, Any]] = [
        changes | {"metric": name, "theory": value}
        for changes in (grid.points() if steps else ())
        for name, value in _figures(sweep, changes).items()
    ]
    return table_of(grid, rows, ["theory"])


def _steps(sweep: Sweep, axis: Axis, most: int) -> tuple[Value, ...]:
    """In whole numbers where a scenario takes no others, such as of robots."""
    values = [
        value for value in axis.values if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if len(values) < max(2, len(axis.values)) or most < 2:
        return ()
    low, high = min(values), max(values)
    if all(isinstance(value, int) for value in values) and not _takes(sweep, {axis.name: low + 0.5}):
        return tuple(np.unique(np.linspace(low, high, most).round().astype(int)).tolist())
    return tuple(np.unique(np.linspace(low, high, most)).tolist())


def _takes(sweep: Sweep, changes: Changes) -> bool:
    try:
        varied(sweep.scenario, changes)
    except Misuse:
        return False
    return True


def _figures(sweep: Sweep, changes: Changes) -> dict[str, float]:
    """None of a queue that grows for ever, or of what is no scenario."""
    try:
        known = recognised(varied(sweep.scenario, changes))
    except Misuse:
        return {}
    return known.figures if known else {}
