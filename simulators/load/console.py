"""A run as people see it in a terminal: a live table, and what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from simulators.load.conductor import Moment
from simulators.load.outcome import Outcome
from simulators.load.usage_log import SideFigures

PLAIN_EVERY_S = 10.0
VERDICTS = {0: "[green]met[/]", 1: "[red]NOT MET[/]", 2: "[yellow]INVALID[/]"}  # by exit code


@contextlib.contextmanager
def shown(out: Console) -> Iterator[Callable[[Moment], None]]:
    """In a terminal a table that changes, else a line now and then."""
    if not out.is_terminal:
        yield _Lines(out).tell
        return
    with Live(console=out, auto_refresh=False, transient=True) as live:
        yield _Pane(live).tell


class _Lines:
    def __init__(self, out: Console) -> None:
        self._out = out
        self._phase = ""
        self._next_s = 0.0

    def tell(self, moment: Moment) -> None:
        if moment.phase == self._phase and moment.at_s < self._next_s:
            return
        self._phase, self._next_s = moment.phase, moment.at_s + PLAIN_EVERY_S
        self._out.print(
            f"{moment.phase} {moment.at_s:.0f} s: {moment.connected_robots} of {moment.robots} robots, "
            f"{moment.connected_watchers} of {moment.watchers} watchers, {moment.beats_sent} heartbeats, "
            f"{moment.events} events received, p99 {moment.latency_p99_ms:.0f} ms, "
            f"{moment.jobs_completed} of {moment.jobs_accepted} jobs done",
            markup=False,
        )


class _Pane:
    def __init__(self, live: Live) -> None:
        self._live = live
        self._last: Moment | None = None

    def tell(self, moment: Moment) -> None:
        last, self._last = self._last or moment, moment
        self._live.update(_pane(moment, last), refresh=True)


def _pane(now: Moment, last: Moment) -> Table:
    span_s = now.at_s - last.at_s

    def per_s(count: int, before: int) -> str:
        return f"{(count - before) / span_s:,.0f}/s" if span_s > 0 else ""

    table = Table(title=f"{now.phase}, {now.at_s:.0f} of {now.lasts_s:.0f} s", title_justify="left")
    for column in ("", "now", "in all"):
        table.add_column(column, justify="right" if column else "left")
    rows = {
        "robots connected": (f"{now.connected_robots:,} of {now.robots:,}", ""),
        "watchers connected": (f"{now.connected_watchers:,} of {now.watchers:,}", ""),
        "heartbeats sent": (per_s(now.beats_sent, last.beats_sent), f"{now.beats_sent:,}"),
        "events received": (per_s(now.events, last.events), f"{now.events:,}"),
        "jobs accepted": (per_s(now.jobs_accepted, last.jobs_accepted), f"{now.jobs_accepted:,}"),
        "jobs completed": (per_s(now.jobs_completed, last.jobs_completed), f"{now.jobs_completed:,}"),
        "heartbeat to watcher p50, p99": (f"{now.latency_p50_ms:.1f}, {now.latency_p99_ms:.1f} ms", ""),
        "generator late, p99": (f"{now.lag_p99_ms:.1f} ms", ""),
        "queue depth": (_known(now.queue_depth), ""),
        "robots idle, busy, offline": (", ".join(map(_known, (now.idle, now.busy, now.offline))), ""),
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    bar = ProgressBar(total=now.lasts_s, completed=min(now.at_s, now.lasts_s), width=40)
    table.add_row("progress", bar, "")
    return table


def _known(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def milliseconds(value: float) -> str:
    """Seconds and more need no tenths of a millisecond."""
    return f"{value:,.1f}" if value < 1_000 else f"{value:,.0f}"


def _sides(outcome: Outcome) -> list[tuple[str, SideFigures]]:
    usage = outcome.usage
    sides = (("server uses", usage.server), ("generator uses", usage.generator)) if usage else ()
    return [(name, each) for name, each in sides if each is not None]


def tell_outcome(out: Console, outcome: Outcome) -> None:
    beats, jobs = outcome.beats, outcome.jobs
    figures = Table(
        title=f"{outcome.name}: {outcome.lasted_s:.0f} s", title_justify="left", show_header=False
    )
    figures.add_row("robots, watchers", f"{outcome.robots:,}, {outcome.watchers:,}")
    figures.add_row(
        "heartbeats offered, sent", f"{beats.offered:,}, {beats.sent:,} ({beats.sent_per_s:,.1f}/s)"
    )
    figures.add_row("events received", f"{outcome.received:,}")
    figures.add_row(
        "lost, duplicated, reordered", f"{outcome.lost:,}, {outcome.duplicated:,}, {outcome.reordered:,}"
    )
    if outcome.in_flight:
        figures.add_row("said last on connections that ended, not received", f"{outcome.in_flight:,}")
    if jobs is not None:
        figures.add_row(
            "jobs offered, accepted, completed", f"{jobs.offered:,}, {jobs.accepted:,}, {jobs.completed:,}"
        )
        figures.add_row(
            "jobs failed, unfinished, lost", f"{jobs.failed:,}, {jobs.unfinished:,}, {jobs.lost:,}"
        )
    figures.add_row("generator late, p99", f"{outcome.generator.lag_ms.get('p99', 0):.1f} ms")
    for side, used in _sides(outcome):
        robot = "" if used.kib_per_robot is None else f", {used.kib_per_robot:,.1f} KiB a robot"
        memory = f"{used.memory_mib_first:,.0f} MiB at first, {used.memory_mib_last:,.0f} at last"
        figures.add_row(side, f"{used.cpu_cores:.2f} cores, {memory}{robot}")
    out.print(figures)
    if outcome.latencies_ms:
        latencies = Table()
        latencies.add_column("latency, ms", no_wrap=True)
        quantiles = list(next(iter(outcome.latencies_ms.values())))
        for quantile in quantiles:
            latencies.add_column(quantile, justify="right")
        for name, summary in outcome.latencies_ms.items():
            latencies.add_row(
                name.replace("_", " "), *(milliseconds(summary[quantile]) for quantile in quantiles)
            )
        out.print(latencies)
    if outcome.thresholds:
        verdicts = Table("threshold", "wanted", "measured", "")
        for verdict in outcome.thresholds:
            value = "not measured" if verdict.value is None else f"{verdict.value:,.4g}"
            verdicts.add_row(
                verdict.metric, verdict.wanted, value, "[green]met[/]" if verdict.met else "[red]NOT MET[/]"
            )
        out.print(verdicts)
    for reason in outcome.invalid_because:
        out.print(f"INVALID: {reason}", markup=False)
    for reason in outcome.incomplete_because:
        out.print(f"INCOMPLETE: {reason}", markup=False)
