"""Two results side by side, each figure with the interval that says how well the run told it.

The seconds of a run are not independent: what was slow stays slow for a while. They are taken in blocks, and
the blocks are drawn again and again (block bootstrap; Kuensch 1989), with a seed that is always the same.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from fleet.errors import Misuse
from simulators.load.beats import Floats
from simulators.load.outcome import Outcome

BLOCK_S = 5
DRAWS = 2_000
LEVEL = 0.95
MEASURES = {
    "p50_ms": "p50 of a second, ms",
    "p99_ms": "p99 of a second, ms",
    "max_ms": "slowest of a second, ms",
    "received": "events a second",
}


class Estimate(msgspec.Struct, frozen=True):
    mean: float
    low: float
    high: float

    @property
    def percent(self) -> Estimate:
        return Estimate(100 * self.mean, 100 * self.low, 100 * self.high)

    def __str__(self) -> str:
        return f"{self.mean:,.1f} ({self.low:,.1f} to {self.high:,.1f})"


class Row(msgspec.Struct, frozen=True):
    """`change` of the second against the first, as a share; `differs` when its interval leaves out 0."""

    measure: str
    first: Estimate
    second: Estimate
    change: Estimate | None
    differs: bool


class Result(msgspec.Struct, frozen=True):
    folder: Path
    outcome: Outcome
    seconds: pl.DataFrame


def read_result(folder: Path) -> Result:
    """Raises Misuse for a folder that holds no result."""
    try:
        outcome = msgspec.json.decode((folder / "summary.json").read_bytes(), type=Outcome)
        seconds = pl.read_parquet(folder / "seconds.parquet")
    except (OSError, msgspec.MsgspecError, pl.exceptions.PolarsError) as error:
        raise Misuse(f"{folder} holds no result of a load test: {str(error).splitlines()[0]}") from None
    inside = (pl.col("at_s") >= 0) & (pl.col("at_s") < int(outcome.lasted_s))
    return Result(folder, outcome, seconds.filter(inside))


def compare(first: Result, second: Result) -> list[Row]:
    return [
        _row(label, _values(first, name), _values(second, name))
        for name, label in MEASURES.items()
        if len(_values(first, name)) and len(_values(second, name))
    ]


def _values(result: Result, name: str) -> Floats:
    return result.seconds[name].drop_nulls().cast(pl.Float64).to_numpy()


def _row(label: str, first: Floats, second: Floats) -> Row:
    rng = np.random.Generator(np.random.PCG64(1))
    one, other = _means(first, rng), _means(second, rng)
    change = None
    if first.mean() and np.all(one):
        change = _estimate(float(second.mean() / first.mean() - 1), other / one - 1)
    differs = change is not None and not change.low <= 0 <= change.high
    return Row(
        label, _estimate(float(first.mean()), one), _estimate(float(second.mean()), other), change, differs
    )


def _means(values: Floats, rng: np.random.Generator) -> Floats:
    """Of blocks drawn with replacement, as many as make up the run."""
    length = min(BLOCK_S, len(values))
    blocks = np.lib.stride_tricks.sliding_window_view(values, length).mean(axis=1)
    count = -(-len(values) // length)
    return np.asarray(blocks[rng.integers(0, len(blocks), (DRAWS, count))].mean(axis=1))


def _estimate(mean: float, drawn: Floats) -> Estimate:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean, float(low), float(high))
