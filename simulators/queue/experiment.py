"""A sweep: a scenario at every point of a grid, a few replications each, on one processor or many.

A point's figures hang on its scenario alone, so that they are the same bits in whatever order and in
whichever process they are found.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import polars as pl

from fleet.errors import FleetError, Misuse, Unavailable
from simulators.queue import fast, lab
from simulators.queue.grid import Axis, Grid
from simulators.queue.lab import Findings
from simulators.queue.variation import Value, label_of, told, varied
from simulators.scenario import Scenario

MOST_TOLD = 3  # of the points that failed
Item = TypeVar("Item")
Made = TypeVar("Made")


class Spread(Protocol):
    """A map, here or over many processes: each item's number, and what the function made of it or the error
    that it raised, as they are done. Closing it ends what still runs."""

    def __call__(
        self, function: Callable[[Item], Made], items: Sequence[Item]
    ) -> Generator[tuple[int, Made | Exception]]: ...


# So many processes, or as many as there are processors; of this machine, or of the cluster at an address.
Workers = Callable[[int | None, str | None], AbstractContextManager[Spread]]


def in_turn(
    function: Callable[[Item], Made], items: Sequence[Item]
) -> Generator[tuple[int, Made | Exception]]:
    """A Spread over this process alone."""
    for number, item in enumerate(items):
        try:
            made: Made | Exception = function(item)
        except Exception as error:
            made = error
        yield number, made


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """All that the figures hang on. `folder`: that of the scenario. Without `warm_up_s` each point finds its
    own."""

    scenario: Scenario
    folder: Path
    grid: Grid
    replications: int = 10
    warm_up_s: float | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One point, as it goes to a process. Points are numbered from 0."""

    number: int
    changes: dict[str, Value]
    scenario: Scenario
    folder: Path
    replications: int
    warm_up_s: float | None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds`: that it took, the only thing that differs from one time to the next."""

    number: int
    changes: dict[str, Value]
    findings: Findings
    seconds: float


def asks_of(sweep: Sweep) -> list[Ask]:
    """Every point's scenario, so that one that makes no sense is refused before any is played. Raises
    Misuse."""
    if sweep.replications < 2:
        raise Misuse("it takes two replications at least: from one nobody can tell how sure a figure is")
    return [
        Ask(
            number=number,
            changes=changes,
            scenario=varied(sweep.scenario, changes),
            folder=sweep.folder,
            replications=sweep.replications,
            warm_up_s=sweep.warm_up_s,
        )
        for number, changes in enumerate(sweep.grid.points())
    ]


def play_point(ask: Ask) -> Point:
    began = time.perf_counter()
    findings = lab.run(ask.scenario, ask.folder, ask.replications, ask.warm_up_s)
    return Point(
        number=ask.number, changes=ask.changes, findings=findings, seconds=time.perf_counter() - began
    )


def run(
    asks: Sequence[Ask],
    spread: Spread = in_turn,
    known: Mapping[int, Point] | None = None,
    keep: Callable[[Point], None] = lambda point: None,
    tell: Callable[[int], None] = lambda done: None,
) -> list[Point]:
    """All points, in their order; those that are `known` are not played again. `keep` gets each as it is
    done, `tell` hears how many are. A point that fails does not stop the others: the error, Misuse or
    Unavailable, comes when all are through."""
    found = dict(known or {})
    left = [ask for ask in asks if ask.number not in found]
    failed: list[tuple[Ask, Exception]] = []
    tell(len(found))
    if spread is not in_turn and left:
        fast.get_ready()
    with contextlib.closing(spread(play_point, left)) as making:
        for place, made in making:
            if isinstance(made, Exception):
                failed.append((left[place], made))
            else:
                keep(made)
                found[made.number] = made
            tell(len(found))
    if failed:
        raise _failure(failed, len(asks)) from failed[0][1]
    return [found[ask.number] for ask in asks]


def _failure(failed: list[tuple[Ask, Exception]], points: int) -> FleetError:
    failed = sorted(failed, key=lambda each: each[0].number)
    words = [f"{label_of(ask.changes)}: {_words(error)}" for ask, error in failed[:MOST_TOLD]]
    if len(failed) > MOST_TOLD:
        words.append("and so on")
    kind = Misuse if all(isinstance(error, Misuse) for _, error in failed) else Unavailable
    return kind(f"{len(failed)} of {points} points failed: {'; '.join(words)}")


def _words(error: Exception) -> str:
    return error.detail if isinstance(error, FleetError) else f"{type(error).__name__}: {error}"


def warnings_of(points: Sequence[Point]) -> list[str]:
    """Each thing once, with the first point that it is said of."""
    said: dict[str, list[Point]] = {}
    for point in points:
        for warning in dict.fromkeys(point.findings.warnings):
            said.setdefault(warning, []).append(point)
    return [f"{label_of(where[0].changes)}{_more(where)}: {warning}" for warning, where in said.items()]


def _more(where: Sequence[Point]) -> str:
    return f" and {len(where) - 1} more" if len(where) > 1 else ""


# -- as a table

FIGURES = ("estimate", "low", "high", "theory", "z")


def frame_of(grid: Grid, points: Sequence[Point]) -> pl.DataFrame:
    """A row per point and metric: a column for each axis, then `metric` and its figures."""
    rows: list[dict[str, Any]] = [
        point.changes | {"metric": name} | {figure: getattr(metric, figure) for figure in FIGURES}
        for point in points
        for name, metric in point.findings.metrics.items()
    ]
    return table_of(grid, rows, FIGURES)


def table_of(grid: Grid, rows: Sequence[dict[str, Any]], figures: Sequence[str]) -> pl.DataFrame:
    """Of rows that have a value for each axis, a `metric` and its `figures`."""
    kinds = {axis.name: _kind_of(axis) for axis in grid.axes}
    for row in rows:
        row.update({name: _as(kind, row[name]) for name, kind in kinds.items()})
    schema = kinds | {"metric": pl.String()} | dict.fromkeys(figures, pl.Float64())
    return pl.DataFrame(rows, schema=schema)


def _kind_of(axis: Axis) -> pl.DataType:
    """The narrowest that has room for all values."""
    kinds = {type(value) for value in axis.values if value is not None}
    if kinds == {bool}:
        return pl.Boolean()
    if kinds == {int}:
        return pl.Int64()
    return pl.Float64() if kinds and kinds <= {int, float} else pl.String()


def _as(kind: pl.DataType, value: Value) -> Value:
    if value is None:
        return None
    if isinstance(kind, pl.String):
        return told(value)
    return float(value) if isinstance(kind, pl.Float64) else value
