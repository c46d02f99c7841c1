"""The charts of a run, by their kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from fleet.errors import Misuse
from simulators.queue import charts
from simulators.queue.frames import curves_of, metrics_of, robots_of
from simulators.queue.lab import Findings
from simulators.scenario import Scenario


def run_chart(found: Findings, scenario: Scenario, kind: str) -> Any:
    """Raises Misuse for a kind that there is not."""
    if kind not in KINDS:
        raise Misuse(f"there is no plot {kind!r} of a run; there is {', '.join(KINDS)}")
    return KINDS[kind](found, scenario)


def _metrics(found: Findings, _: Scenario) -> Any:
    return charts.findings_chart(metrics_of(found).filter(pl.col("class") == "").drop("class"))


def _times(found: Findings, _: Scenario) -> Any:
    """Of what is less than one job of a replication nobody can tell how long it takes."""
    return charts.times_chart(curves_of(found), found.replications / max(1, found.jobs))


def _line(found: Findings, _: Scenario) -> Any:
    waiting = found.metrics.get("Lq")
    return charts.line_chart(curves_of(found), found.warm_up_s, waiting.theory if waiting else None)


def _robots(found: Findings, scenario: Scenario) -> Any:
    return charts.robots_chart(robots_of(found, scenario))


KINDS: dict[str, Callable[[Findings, Scenario], Any]] = {
    "metrics": _metrics,
    "times": _times,
    "line": _line,
    "robots": _robots,
}
