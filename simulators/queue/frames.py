"""What a run found, as tables: its metrics, its robots, its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from simulators.queue.experiment import FIGURES
from simulators.queue.lab import Curves, Findings, Metric
from simulators.scenario import Scenario

METRICS: dict[str, pl.DataType] = {
    "class": pl.String(),
    "metric": pl.String(),
    **dict.fromkeys(FIGURES, pl.Float64()),
}
ROBOTS: dict[str, pl.DataType] = {
    "fleet": pl.String(),
    "place": pl.Int64(),
    "utilisation": pl.Float64(),
    "jobs": pl.Float64(),
}
CURVES: dict[str, pl.DataType] = {
    "curve": pl.String(),
    "share": pl.Float64(),
    "at_s": pl.Float64(),
    "value": pl.Float64(),
    "theory": pl.Float64(),
}


def metrics_of(found: Findings) -> pl.DataFrame:
    """A row per metric, of all jobs together (the class ""), then of each class."""
    parts = {"": found.metrics} | found.classes
    rows = [row for name, metrics in parts.items() for row in _rows(name, metrics)]
    return pl.DataFrame(rows, schema=METRICS)


def _rows(name: str, metrics: Mapping[str, Metric]) -> list[dict[str, Any]]:
    return [
        {"class": name, "metric": metric} | {figure: getattr(each, figure) for figure in FIGURES}
        for metric, each in metrics.items()
    ]


def robots_of(found: Findings, scenario: Scenario) -> pl.DataFrame:
    """A row per robot; one that does several jobs at once has as many places, and a row for each. `place` is
    counted from 1 in each fleet."""
    places = [
        (name, place + 1)
        for name, fleet in scenario.fleets.items()
        for place in range(fleet.count * fleet.max_concurrent_jobs)
    ]
    of = found.of_robots
    rows = [
        {"fleet": fleet, "place": place, "utilisation": utilisation, "jobs": jobs}
        for (fleet, place), utilisation, jobs in zip(places, of.utilisation, of.jobs, strict=True)
    ]
    return pl.DataFrame(rows, schema=ROBOTS)


def curves_of(found: Findings) -> pl.DataFrame:
    """`waits` and `stays`: seconds that a `share` of the jobs does not exceed. `in_line`: jobs that wait, on
    average over one hundredth of the time, which begins at `at_s`."""
    curves = found.curves
    rows = [
        *_at_shares("waits", curves, curves.waits, curves.waits_theory),
        *_at_shares("stays", curves, curves.stays, curves.stays_theory),
        *_over_time(curves, found.lasts_s),
    ]
    return pl.DataFrame(rows, schema=CURVES)


def _at_shares(name: str, curves: Curves, values: list[float], theory: list[float]) -> list[dict[str, Any]]:
    known: Sequence[float | None] = theory or [None] * len(values)
    return [
        {"curve": name, "share": share, "value": value, "theory": truth}
        for share, value, truth in zip(curves.shares, values, known, strict=False)
    ]


def _over_time(curves: Curves, lasts_s: float) -> list[dict[str, Any]]:
    step_s = (lasts_s - curves.begins_s) / max(1, len(curves.in_line))
    return [
        {"curve": "in_line", "at_s": curves.begins_s + number * step_s, "value": value}
        for number, value in enumerate(curves.in_line)
    ]
