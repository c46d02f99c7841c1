"""The reports of the queue lab: what was played, what came of it beside theory, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import polars as pl
import yaml  # type: ignore[import-untyped]

from simulators import report
from simulators.queue import charts
from simulators.queue.comparison import Compared, Difference, Figure, frame_of
from simulators.queue.experiment import Point, Sweep, warnings_of
from simulators.queue.experiment import frame_of as points_of
from simulators.queue.frames import metrics_of
from simulators.queue.lab import Findings, Metric
from simulators.queue.run_charts import run_chart
from simulators.queue.sweep_theory import theory_between
from simulators.queue.variation import told
from simulators.queue.words import with_error
from simulators.report import Page, Plot, Table
from simulators.scenario import Scenario, TraceArrivals

MOST_ROWS, MOST_PANELS, MOST_WARNINGS = 200, 12, 10  # on a page; the tables beside it have all
SURE = "95\N{NO-BREAK SPACE}%"
SWEPT = {"W": "Time in the system, W", "Wq": "Waiting time, Wq", "utilisation": "Utilisation"}
MEANS = {
    "L": "jobs there",
    "Lq": "jobs waiting",
    "W": "time in the system, s",
    "Wq": "waiting time, s",
    "W_squared": "its square, on average, s²",
    "Wq_squared": "its square, on average, s²",
    "throughput": "jobs done a second",
    "utilisation": "share of the robots that is busy",
    "availability": "share of the robots that is not broken",
    "P_wait": "share of the jobs that wait",
    "P_block": "share turned away by a full queue",
    "P_balk": "share that does not join",
    "P_abandon": "share that gives up waiting",
    "P_dead_letter": "share that fails for good",
}


# -- a run


def run_report(
    found: Findings, scenario: Scenario, warm_up_s: float | None, version: str, engine: str = "auto"
) -> str:
    """`warm_up_s` and `engine`: as they were asked for. A precision that was is as many replications."""
    words = ["run", "--replications", str(found.replications), *_left_out(warm_up_s)]
    words += [] if engine == "auto" else ["--engine", engine]
    warnings = list(dict.fromkeys(found.warnings))
    robots = "one robot" if found.robots == 1 else f"{found.robots:,} robots"
    return report.html(
        Page(
            title=f"Queue: {found.name}",
            about=f"{found.jobs:,} jobs on {robots}, {found.replications} times "
            f"{found.lasts_s:,.0f} s; the first {found.warm_up_s:,.0f} s are left out",
            verdict=_verdict(found, warnings),
            good=not warnings,
            notes=warnings,
            tables=_tables(found),
            plots=_plots(found, scenario),
            made=_made(scenario, found.replications, warm_up_s, version),
            sources=[_command(words), yaml_of(scenario)],
        )
    )


def _verdict(found: Findings, warnings: Sequence[str]) -> str:
    beside = _beside_theory(found)
    return f"{_counted(warnings)} {beside}" if warnings else beside


def _counted(warnings: Sequence[str]) -> str:
    return "One warning." if len(warnings) == 1 else f"{len(warnings)} warnings."


def _beside_theory(found: Findings) -> str:
    """Of figures that vary: that nobody is turned away where nobody can be says nothing."""
    if not found.model:
        return "This is no queue of the textbooks that we know, or one that does not settle."
    judged = [each for each in found.metrics.values() if each.z is not None and each.low < each.high]
    if not judged:
        return f"{found.model}: theory is an approximation here."
    inside = sum(each.theory is not None and each.low <= each.theory <= each.high for each in judged)
    return f"{found.model}: theory is inside the interval of 95 % of {inside} of {len(judged)} figures."


def _tables(found: Findings) -> list[Table]:
    tables = [_table("All jobs" if len(found.classes) > 1 else "Figures", found.metrics)]
    if len(found.classes) > 1:
        tables += [_table(f"Jobs of the class {name}", metrics) for name, metrics in found.classes.items()]
    return tables


def _table(title: str, metrics: Mapping[str, Metric]) -> Table:
    known = any(each.theory is not None for each in metrics.values())
    head = ["", "estimate", f"interval of {SURE}", *(["theory", "z"] if known else [])]
    rows = [[_named(name), *_cells(each, known)] for name, each in metrics.items()]
    return Table(title, head, rows)


def _named(metric: str) -> str:
    name, _, percent = metric.partition("_p")
    if name in ("W", "Wq") and percent:
        return f"{metric}: {percent} % {'wait' if name == 'Wq' else 'stay'} no longer, s"
    return f"{metric}: {MEANS[metric]}" if metric in MEANS else metric


def _cells(metric: Metric, known: bool) -> list[str]:
    cells = [f"{metric.estimate:,.4g}", f"{metric.low:,.4g} to {metric.high:,.4g}"]
    if known:
        cells.append("" if metric.theory is None else f"{metric.theory:,.4g}")
        cells.append("" if metric.z is None else f"{metric.z:+.1f}")
    return cells


def _plots(found: Findings, scenario: Scenario) -> list[Plot]:
    """Of what there is something to be seen of."""
    curves, waiting = found.curves, found.metrics.get("Lq")
    theory = " Dashed: theory." if curves.waits_theory else ""
    settled = " Dashed: what theory says once it has settled." if waiting and waiting.theory else ""
    plots = []
    if curves.waits or curves.stays:
        about = f"The share of the jobs that waited longer, and that took longer from arrival to end.{theory}"
        plots.append(Plot("How long it takes", about, run_chart(found, scenario, "times")))
    if any(curves.in_line):
        about = f"One hundredth of the time after the other, on average. Grey: left out.{settled}"
        plots.append(Plot("Jobs in line", about, run_chart(found, scenario, "line")))
    if len(found.of_robots.utilisation) > 1:
        about = "The share of the time in which each works."
        plots.append(Plot("How busy robots are", about, run_chart(found, scenario, "robots")))
    sure = metrics_of(found).filter(pl.col("class") == "", pl.col("low") < pl.col("high"))
    if len(sure):
        about = "Each on a scale of its own. Red: theory."
        plots.append(Plot("Figures with their intervals", about, charts.findings_chart(sure)))
    return plots


# -- a comparison


def compare_report(found: Compared, scenario: Scenario, warm_up_s: float | None, version: str) -> str:
    words = ["compare", *(word for name in found.policies for word in ("--policy", name))]
    words += ["--replications", str(found.replications), *_left_out(warm_up_s)]
    first, *others = found.policies
    about = "With intervals of 95 %, each figure on a scale of its own; dashed: no difference."
    sure = {name: figures for name, figures in found.metrics.items() if _varies(figures)}
    varying = msgspec.structs.replace(found, metrics=sure)
    verdict = _differing(varying)
    plot = Plot(f"Differences from {first}", about, charts.differences_chart(frame_of(varying)))
    return report.html(
        Page(
            title=f"Comparison: {found.name}",
            about=f"{', '.join(others)} beside {first}; {found.replications} times {scenario.lasts_s:,.0f} s "
            f"on the same random numbers; the first {found.warm_up_s:,.0f} s are left out",
            verdict=f"{_counted(found.warnings)} {verdict}" if found.warnings else verdict,
            good=not found.warnings,
            notes=found.warnings,
            tables=[_differences(varying)],
            plots=[plot] if sure else [],
            made=_made(scenario, found.replications, warm_up_s, version),
            sources=[_command(words), yaml_of(scenario)],
        )
    )


def _varies(figures: Sequence[Figure]) -> bool:
    """That nobody is turned away where nobody can be is not worth a row."""
    return any(each.low < each.high or each.estimate != figures[0].estimate for each in figures)


def _differing(found: Compared) -> str:
    clear = sum(
        any(each.difference is not None and each.difference.clear for each in figures)
        for figures in found.metrics.values()
    )
    return f"{clear} of {len(found.metrics)} figures differ from those of {found.policies[0]}."


def _differences(found: Compared) -> Table:
    rows = [
        [name if number == 0 else "", policy, with_error(each.estimate, each.high), *_of(each.difference)]
        for name, figures in found.metrics.items()
        for number, (policy, each) in enumerate(zip(found.policies, figures, strict=True))
    ]
    head = ["", "policy", f"estimate ± at {SURE}", f"difference ± at {SURE}", ""]
    return Table("Replication by replication", head, rows, words=2)


def _of(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", ""]
    return [with_error(difference.estimate, difference.high, "+"), "differs" if difference.clear else ""]


# -- a sweep


def sweep_report(sweep: Sweep, points: Sequence[Point], version: str) -> str:
    axes = [axis.name for axis in sweep.grid.axes]
    warnings = warnings_of(points)
    shown = warnings[:MOST_WARNINGS]
    if len(warnings) > MOST_WARNINGS:
        shown.append(f"and {len(warnings) - MOST_WARNINGS:,} more")
    jobs = sum(point.findings.jobs for point in points)
    verdict = f"{len(points):,} points over {', '.join(axes)}."
    return report.html(
        Page(
            title=f"Sweep: {sweep.scenario.name}",
            about=f"{jobs:,} jobs, each point {sweep.replications} times",
            verdict=f"{_counted(warnings)} {verdict}" if warnings else verdict,
            good=not warnings,
            notes=shown,
            tables=[_points(sweep, points)],
            plots=_sweep_plots(sweep, points),
            made=_made(sweep.scenario, sweep.replications, sweep.warm_up_s, version),
            sources=[_command(_sweep_words(sweep)), yaml_of(sweep.scenario)],
        )
    )


def _points(sweep: Sweep, points: Sequence[Point]) -> Table:
    axes = [axis.name for axis in sweep.grid.axes]
    metrics = [name for name in SWEPT if any(name in point.findings.metrics for point in points)]
    head = [*axes, *(cell for name in metrics for cell in (f"{name} ± at {SURE}", "theory"))]
    rows = [
        [*(told(point.changes[name]) for name in axes), *_row(point.findings.metrics, metrics)]
        for point in points[:MOST_ROWS]
    ]
    more = f"; the first {MOST_ROWS:,} of {len(points):,}" if len(points) > MOST_ROWS else ""
    return Table(f"Points{more}", head, rows, words=len(axes))


def _row(metrics: Mapping[str, Metric], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        each = metrics.get(name)
        cells.append("" if each is None else with_error(each.estimate, each.high))
        cells.append("" if each is None or each.theory is None else f"{each.theory:,.4g}")
    return cells


def _sweep_plots(sweep: Sweep, points: Sequence[Point]) -> list[Plot]:
    axes = [axis.name for axis in sweep.grid.axes]
    frame, panels = _some_panels(points_of(sweep.grid, points), axes[2:])
    between = theory_between(sweep)
    about = "Band: the interval of 95 %. Dashed: theory, where it is known."
    if panels > MOST_PANELS:
        between = between.join(frame.select(axes[2:]).unique(), on=axes[2:], how="semi")
        about += f" The first {MOST_PANELS} of {panels:,} panels."
    there = set(frame["metric"])
    return [
        Plot(title, about, charts.sweep_chart(frame, axes, name, between))
        for name, title in SWEPT.items()
        if name in there
    ]


def _some_panels(frame: pl.DataFrame, axes: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """Of more than can be looked at, the first; and how many there are."""
    if not axes:
        return frame, 1
    panels = frame.select(axes).unique(maintain_order=True)
    return frame.join(panels.head(MOST_PANELS), on=axes, how="semi", nulls_equal=True), len(panels)


def _sweep_words(sweep: Sweep) -> list[str]:
    words = ["sweep"]
    for axis in sweep.grid.axes:
        words += ["--over", f"{axis.name}={','.join(told(value) for value in axis.values)}"]
    return [*words, "--replications", str(sweep.replications), *_left_out(sweep.warm_up_s)]


# -- how to make it again


def yaml_of(scenario: Scenario) -> str:
    """A file that says the same."""
    content: dict[str, Any] = {"name": scenario.name, "seed": scenario.seed}
    content |= scenario.model_dump(mode="json", exclude_defaults=True)
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100))


def _left_out(warm_up_s: float | None) -> list[str]:
    return [] if warm_up_s is None else ["--warm-up", f"{warm_up_s}s"]


def _command(words: Sequence[str]) -> str:
    """As a shell takes it, an option to a line."""
    command, *options = words
    lines = [shlex.join(pair) for pair in zip(options[::2], options[1::2], strict=True)]
    return " \\\n  ".join([f"fleetcast queue {command} scenario.yaml", *lines])


def _made(scenario: Scenario, replications: int, warm_up_s: float | None, version: str) -> Table:
    settled = "until it had settled" if warm_up_s is None else f"{warm_up_s:g} s, as it was asked for"
    rows = [
        ["seed", str(scenario.seed)],
        ["replications", str(replications)],
        ["left out at the beginning", settled],
        ["fleetcast", version],
    ]
    if scenario.jobs is not None and isinstance(scenario.jobs.arrivals, TraceArrivals):
        rows.append(["a file beside the scenario", scenario.jobs.arrivals.file])
    return Table("How to make it again", ["", ""], rows, words=2)
