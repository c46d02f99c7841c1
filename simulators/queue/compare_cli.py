"""`fleetcast queue compare`: a scenario under several policies that meet the same jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from simulators.queue.cli import AsJson, File, Into, Lasts, Robots, Seed, Times, WarmUp
from simulators.queue.words import with_error

if TYPE_CHECKING:  # what a run needs takes most of a second to import, which other commands need not wait
    from simulators.queue.comparison import Compared, Difference, Figure
    from simulators.queue.result_folder import ComparisonFolder

Policies = Annotated[
    list[str],
    typer.Option(
        metavar="POLICY",
        help="A discipline, such as fifo, or fields, such as robots=12,load=0.8; two at least, the others "
        "beside the first.",
    ),
]


def add_compare(app: typer.Typer, out: Console) -> None:
    """To the commands of `fleetcast queue`."""

    @app.command(name="compare")
    def compare_policies(
        scenario: File,
        policy: Policies,
        replications: Times = 10,
        warm_up: WarmUp = None,
        duration: Lasts = None,
        robots: Robots = None,
        seed: Seed = None,
        results: Into = None,
        as_json: AsJson = False,
    ) -> None:
        """Play a scenario under several policies on the same random numbers, and say how they differ."""
        from simulators.asked import scenario_asked_for, seconds_of
        from simulators.queue import comparison

        plan = scenario_asked_for(scenario, robots, duration, seed)
        policies = comparison.policies_written(policy)
        warm_up_s = None if warm_up is None else seconds_of("--warm-up", warm_up)
        kept = None if results is None else _folder(results)
        began = time.perf_counter()
        with Progress(console=out, transient=True, disable=as_json or not out.is_terminal) as progress:
            task = progress.add_task("replications", total=len(policies) * replications)
            found = comparison.compare(
                plan,
                scenario.parent,
                policies,
                replications,
                warm_up_s,
                lambda done: progress.update(task, completed=done),
            )
        summary = _json(found, time.perf_counter() - began)
        if kept is not None:
            kept.keep(found, plan, warm_up_s, summary)
        if as_json:
            print(summary)
        else:
            _tell(out, found)
            if kept is not None:
                out.print(f"fleetcast: results in {kept.folder}", markup=False)


def _folder(results: Path) -> ComparisonFolder:
    from simulators.queue.result_folder import ComparisonFolder

    return ComparisonFolder(results, version("fleetcast"))


def _json(found: Compared, seconds: float) -> str:
    plain: dict[str, Any] = msgspec.to_builtins(found)
    return msgspec.json.encode(plain | {"seconds": round(seconds, 3)}).decode()


def _tell(out: Console, found: Compared) -> None:
    title = f"{found.name}: {found.replications} times, on the same random numbers; ± at 95 %"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("policy", overflow="fold")
    for column in ("estimate", "difference", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for name, figures in found.metrics.items():
        _add(table, name, found.policies, figures)
    out.print(table, soft_wrap=False)
    out.print(f"differences are from {found.policies[0]}, replication by replication", markup=False)
    out.print(f"times in seconds; the first {found.warm_up_s:,.0f} s are left out", markup=False)
    for warning in found.warnings:
        out.print(f"WARNING: {warning}", markup=False)


def _add(table: Table, name: str, policies: Sequence[str], figures: Sequence[Figure]) -> None:
    for policy, each in zip(policies, figures, strict=True):
        estimate = with_error(each.estimate, each.high)
        table.add_row(name if each is figures[0] else "", policy, estimate, *_of(each.difference))
    table.add_section()


def _of(difference: Difference | None) -> list[str]:
    if difference is None:
        return []
    return [with_error(difference.estimate, difference.high, "+"), "differs" if difference.clear else ""]
