"""The report on a load test: what was asked, what was measured, and how it went over time."""

from __future__ import annotations

from math import log10

import polars as pl

from simulators import report
from simulators.load.conductor import Performance
from simulators.load.console import milliseconds
from simulators.load.latency import Latencies
from simulators.load.outcome import Outcome
from simulators.load.usage_log import SideFigures, UsageFigures
from simulators.report import Page, Plot, Table

MOST_POINTS = 2_000  # a line on a screen has no more
NINES = [n / 20 for n in range(101)]


def load_report(performance: Performance) -> str:
    outcome = performance.outcome
    return report.html(
        Page(
            title=f"Load test: {outcome.name}",
            about=f"{outcome.started_at}, {outcome.url}, seed {outcome.seed}, fleetcast {outcome.version}",
            verdict=_verdict(outcome),
            good=outcome.exit_code == 0,
            notes=[*outcome.invalid_because, *outcome.incomplete_because],
            tables=_tables(outcome),
            plots=_plots(performance),
        )
    )


def _verdict(outcome: Outcome) -> str:
    missed = sum(not verdict.met for verdict in outcome.thresholds)
    if not outcome.complete:
        return "Incomplete: the run did not come to its end."
    if not outcome.valid:
        return "Invalid: these figures are of the generator as much as of the server."
    if missed:
        return f"{missed} of {len(outcome.thresholds)} thresholds were not met."
    return f"All {len(outcome.thresholds)} thresholds were met." if outcome.thresholds else "Done."


def _tables(outcome: Outcome) -> list[Table]:
    tables = []
    if outcome.thresholds:
        tables.append(
            Table(
                "Thresholds",
                ["metric", "wanted", "measured", ""],
                [
                    [
                        verdict.metric.replace("_", " "),
                        verdict.wanted,
                        "not measured" if verdict.value is None else f"{verdict.value:,.4g}",
                        "met" if verdict.met else "not met",
                    ]
                    for verdict in outcome.thresholds
                ],
                frozenset(n for n, verdict in enumerate(outcome.thresholds) if not verdict.met),
            )
        )
    if outcome.latencies_ms:
        quantiles = list(next(iter(outcome.latencies_ms.values())))
        tables.append(
            Table(
                "Latency in milliseconds, from when it was due",
                ["", *quantiles],
                [
                    [name.replace("_", " "), *(milliseconds(summary[quantile]) for quantile in quantiles)]
                    for name, summary in outcome.latencies_ms.items()
                ],
            )
        )
    tables.append(Table("Counts", ["", "count"], _counts(outcome)))
    if outcome.usage is not None:
        tables.append(_usage(outcome.usage))
    errors = {
        **{f"robots: refused with {code}": count for code, count in outcome.robots_refused.items()},
        **{f"watchers: closed with {code}": count for code, count in outcome.watchers_closed.items()},
        **{f"jobs: {why}": count for why, count in (outcome.jobs.refused if outcome.jobs else {}).items()},
    }
    if errors:
        tables.append(
            Table("Errors", ["", "count"], [[what, f"{count:,}"] for what, count in errors.items()])
        )
    return tables


def _counts(outcome: Outcome) -> list[list[str]]:
    counts = {
        "robots": outcome.robots,
        "watchers": outcome.watchers,
        "heartbeats offered": outcome.beats.offered,
        "heartbeats sent": outcome.beats.sent,
        "events received": outcome.received,
        "events lost": outcome.lost,
        "events duplicated": outcome.duplicated,
        "events reordered": outcome.reordered,
        "said last on connections that ended, and not received": outcome.in_flight,
        "gaps that the server announced": outcome.gaps,
        "robots that connected again": outcome.robot_reconnects,
        "watchers that were not there all the time": outcome.watchers_late,
    }
    if outcome.jobs is not None:
        jobs = outcome.jobs
        counts |= {
            "jobs offered": jobs.offered,
            "jobs accepted": jobs.accepted,
            "jobs completed": jobs.completed,
            "jobs failed": jobs.failed,
            "jobs unfinished": jobs.unfinished,
            "jobs lost": jobs.lost,
            "jobs duplicated": jobs.duplicated,
        }
    return [[what, f"{count:,}"] for what, count in counts.items()]


def _usage(usage: UsageFigures) -> Table:
    rows = [
        [name, f"{each.cpu_cores:.2f}", _mib(each), _kib(each)]
        for name, each in (("server", usage.server), ("generator", usage.generator))
        if each is not None
    ]
    rows += [
        [
            f"node {each.node}, all of it",
            f"{each.cpu_cores:.2f} of {each.cores}",
            f"{each.memory_mib_max:,.0f}",
            "",
        ]
        for each in usage.nodes
    ]
    heads = ["", "cores busy", "memory at first, last and most, MiB", "KiB a robot"]
    return Table("CPU and memory", heads, rows)


def _mib(side: SideFigures) -> str:
    return f"{side.memory_mib_first:,.0f}, {side.memory_mib_last:,.0f}, {side.memory_mib_max:,.0f}"


def _kib(side: SideFigures) -> str:
    return "" if side.kib_per_robot is None else f"{side.kib_per_robot:,.1f}"


def _plots(performance: Performance) -> list[Plot]:
    seconds, moments = _thinned(performance.seconds), _thinned(_running(performance))
    plots = []
    if len(seconds):
        plots.append(
            Plot(
                "Latency over time",
                "From when an event was due to when a watcher received it, each second.",
                report.lines(seconds, "at_s", ["p50_ms", "p99_ms", "max_ms"], "ms", log=True),
            )
        )
        curves = [_curve(name, each) for name, each in performance.latencies.items() if len(each)]
        plots.append(
            Plot(
                "Percentiles",
                "How many were at least as fast; the axis is stretched towards the slowest.",
                report.percentiles(pl.concat(curves)),
            )
        )
        plots.append(
            Plot(
                "Events received",
                "By all watchers together, each second.",
                report.lines(seconds, "at_s", ["received"], "events a second"),
            )
        )
    if len(moments) and moments["queue_depth"].null_count() < len(moments):
        plots.append(
            Plot(
                "Queue depth",
                "Jobs that wait for a robot, as the server says.",
                report.lines(moments, "at_s", ["queue_depth"], "jobs"),
            )
        )
        plots.append(
            Plot(
                "Robots by status",
                "As the server says.",
                report.areas(moments, "at_s", ["idle", "busy", "offline"], "robots"),
            )
        )
    if len(performance.usage):
        plots += _usage_plots(performance.usage)
    return plots


def _usage_plots(usage: pl.DataFrame) -> list[Plot]:
    """Of all nodes together."""
    cpu = {"server_cpu_cores": "server", "generator_cpu_cores": "generator", "cpu_cores": "all"}
    memory = {"server_mib": "server", "generator_mib": "generator"}
    total = _thinned(usage.group_by("at_s", maintain_order=True).agg(pl.exclude("node", "at_s").sum()))
    return [
        Plot(title, "On all our nodes.", report.lines(of.rename(names), "at_s", list(names.values()), unit))
        for title, names, unit in (("CPU", cpu, "cores busy"), ("Memory", memory, "MiB"))
        for of in [total.select("at_s", *names)]
    ]


def _running(performance: Performance) -> pl.DataFrame:
    return performance.frame.filter(~pl.col("phase").is_in(["connecting", "settling"]))


def _thinned(table: pl.DataFrame) -> pl.DataFrame:
    return table.gather_every(max(1, len(table) // MOST_POINTS))


def _curve(name: str, latencies: Latencies) -> pl.DataFrame:
    """As far as there are enough events to tell."""
    most = log10(len(latencies)) if len(latencies) > 1 else 0.0
    nines = [each for each in NINES if each <= most]
    values = [max(0.001, latencies.quantile_ms(100 * (1 - 10**-each))) for each in nines]
    return pl.DataFrame({"what": [name.replace("_", " ")] * len(nines), "nines": nines, "value": values})
