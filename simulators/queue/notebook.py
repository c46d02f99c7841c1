"""The queue lab from Python: simulate, sweep and compare, with results as frames, tables and charts.

A scenario is a file, a dict as a file would have it, or a Scenario.
"""

from __future__ import annotations

import contextlib
import html
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from pydantic import ValidationError

from fleet.errors import Misuse
from simulators.queue import charts, comparison, experiment, lab, run_charts
from simulators.queue.comparison import Compared
from simulators.queue.experiment import FIGURES, Point, Spread, Sweep, Workers, in_turn
from simulators.queue.grid import grid_of
from simulators.queue.lab import Findings
from simulators.queue.queue_report import sweep_report
from simulators.queue.sweep_folder import SweepFolder
from simulators.queue.sweep_theory import theory_between
from simulators.queue.variation import Changes, problems_of, varied
from simulators.scenario import Scenario
from simulators.scenario_file import ScenarioRefused, read_scenario

MOST_ROWS = 60  # of a table in a notebook
Source = Scenario | Mapping[str, Any] | str | Path


class Shown(ABC):
    """What a notebook does with a result."""

    @abstractmethod
    def frame(self) -> pl.DataFrame: ...

    @abstractmethod
    def to_json(self) -> str: ...

    @abstractmethod
    def _about(self) -> str: ...

    def pandas(self) -> Any:
        """Raises Misuse where pandas is not installed."""
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise Misuse("pandas is not installed: pip install pandas, or use frame(), of polars") from None
        return pandas.DataFrame(self.frame().to_dict(as_series=False))

    def _repr_html_(self) -> str:
        with pl.Config(tbl_rows=MOST_ROWS, tbl_hide_dataframe_shape=True):
            table = self.frame()._repr_html_()
        return f"<p>{html.escape(self._about())}</p>{table}"


@dataclass(frozen=True)
class Result(Shown):
    findings: Findings
    scenario: Scenario

    def frame(self) -> pl.DataFrame:
        """A row per metric."""
        rows = [
            {"metric": name} | {figure: getattr(each, figure) for figure in FIGURES}
            for name, each in self.findings.metrics.items()
        ]
        return pl.DataFrame(rows, schema={"metric": pl.String(), **dict.fromkeys(FIGURES, pl.Float64())})

    def to_json(self) -> str:
        return msgspec.json.encode(self.findings).decode()

    def plot(self, kind: str = "metrics") -> Any:
        """`metrics`: each with its interval, beside theory; `times`: how long jobs waited and were there, as
        a distribution; `line`: jobs in line over time; `robots`: how busy each is. Raises Misuse for
        another."""
        return run_charts.run_chart(self.findings, self.scenario, kind)

    def _about(self) -> str:
        found = self.findings
        model = f", {found.model}" if found.model else ""
        told = f"{found.name}{model}: {found.jobs:,} jobs, {found.replications} times {found.lasts_s:,.0f} s"
        return ". WARNING: ".join([told, *dict.fromkeys(found.warnings)])


@dataclass(frozen=True)
class SweepResult(Shown):
    of: Sweep
    points: list[Point]

    def frame(self) -> pl.DataFrame:
        """A row per point and metric."""
        return experiment.frame_of(self.of.grid, self.points)

    def to_json(self) -> str:
        axes = {axis.name: axis.values for axis in self.of.grid.axes}
        return msgspec.json.encode({"axes": axes, "points": self.points}).decode()

    def plot(self, metric: str = "W") -> Any:
        """Over the first axis, a colour for each value of the second, with theory where it is known. Raises
        Misuse for a metric that is not there."""
        axes = [axis.name for axis in self.of.grid.axes]
        return charts.sweep_chart(self.frame(), axes, metric, theory_between(self.of))

    def _about(self) -> str:
        jobs = sum(point.findings.jobs for point in self.points)
        return f"{self.of.scenario.name}: {len(self.points):,} points, {jobs:,} jobs"


@dataclass(frozen=True)
class Comparison(Shown):
    compared: Compared

    def frame(self) -> pl.DataFrame:
        """A row per metric and policy, with the difference from the first."""
        return comparison.frame_of(self.compared)

    def to_json(self) -> str:
        return msgspec.json.encode(self.compared).decode()

    def plot(self) -> Any:
        """The differences from the first policy, with their intervals."""
        return charts.differences_chart(self.frame())

    def _about(self) -> str:
        told = f"{self.compared.name}: beside {self.compared.policies[0]}, on the same jobs"
        return ". WARNING: ".join([told, *self.compared.warnings])


def simulate(
    scenario: Source,
    changes: Changes | None = None,
    *,
    replications: int = 10,
    warm_up_s: float | None = None,
    folder: Path | None = None,
) -> Result:
    """`changes`: such as {"robots": 12, "load": 0.8, "fleets.arms.speed": 2.0}. Without `warm_up_s` the
    beginning is left out until the queue has settled. `folder`: where the trace of a scenario lies that comes
    from no file. Raises Misuse."""
    plan, home = _plan(scenario, folder)
    plan = varied(plan, changes) if changes else plan
    return Result(lab.run(plan, home, replications, warm_up_s), plan)


def sweep(
    scenario: Source,
    over: Mapping[str, Any],
    *,
    replications: int = 10,
    warm_up_s: float | None = None,
    processes: int = 1,
    workers: Workers | None = None,
    results: Path | str | None = None,
    tell: Callable[[int], None] = lambda done: None,
    folder: Path | None = None,
) -> SweepResult:
    """At every combination of the values, such as over={"robots": range(10, 101, 10), "load": [0.5, 0.8]}.
    Several `processes` take `workers=fleetcast.workers`. With `results`, a folder, what is done is kept, and
    the same call goes on where it was left. `tell` hears how many points are done. Raises Misuse."""
    plan, home = _plan(scenario, folder)
    asked = Sweep(
        scenario=plan, folder=home, grid=grid_of(over), replications=replications, warm_up_s=warm_up_s
    )
    asks = experiment.asks_of(asked)
    kept = SweepFolder(Path(results), asked, version("fleetcast")) if results is not None else None
    with _spread(processes, workers) as spread:
        if kept is None:
            return SweepResult(asked, experiment.run(asks, spread, tell=tell))
        points = experiment.run(asks, spread, kept.known(), kept.keep, tell)
    kept.finish(points)
    kept.keep_report(sweep_report(asked, points, version("fleetcast")))
    return SweepResult(asked, points)


def compare(
    scenario: Source,
    policies: Sequence[str | Changes],
    *,
    replications: int = 10,
    warm_up_s: float | None = None,
    folder: Path | None = None,
) -> Comparison:
    """Each policy a discipline ("fifo"), or changes as `simulate` takes them, also as "robots=12,load=0.8".
    Raises Misuse."""
    plan, home = _plan(scenario, folder)
    made = comparison.policies_of(policies)
    return Comparison(comparison.compare(plan, home, made, replications, warm_up_s))


def _plan(scenario: Source, folder: Path | None) -> tuple[Scenario, Path]:
    """With the folder of its trace. Raises ScenarioRefused."""
    if isinstance(scenario, Scenario):
        return scenario, folder or Path()
    if isinstance(scenario, str | Path):
        return read_scenario(Path(scenario)), folder or Path(scenario).parent
    try:
        return Scenario.model_validate(dict(scenario)), folder or Path()
    except ValidationError as error:
        raise ScenarioRefused("; ".join(problems_of(error))) from None


def _spread(processes: int, workers: Workers | None) -> contextlib.AbstractContextManager[Spread]:
    if processes < 1:
        raise Misuse(f"it takes a process at least, not {processes}")
    if processes == 1:
        return contextlib.nullcontext(in_turn)
    if workers is None:
        raise Misuse("several processes are Ray's to start: give workers=fleetcast.workers, too")
    return workers(processes, None)
