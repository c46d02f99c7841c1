"""`fleetcast queue`: what a fleet's queue does, in virtual time."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

if TYPE_CHECKING:  # what a run needs takes most of a second to import, which other commands need not wait
    from simulators.queue.lab import Findings
    from simulators.queue.result_folder import RunFolder

File = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file; some are in scenarios/.")]
Times = Annotated[int, typer.Option(min=2, help="How often it is played, each time with other numbers.")]
WarmUp = Annotated[
    str | None, typer.Option(help="What to leave out at the beginning, such as 5min; else until it settles.")
]
Lasts = Annotated[str | None, typer.Option(help="Such as 2h, instead of the scenario's.")]
Robots = Annotated[int | None, typer.Option(min=1, help="Robots in all, instead of the scenario's.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Instead of the scenario's.")]
Into = Annotated[
    Path | None, typer.Option("--results", help="A folder for tables, a summary and a report to look at.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def queue_app(out: Console) -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True, help="Research on queues: the fleet's rules in virtual time, beside theory."
    )

    @app.callback()
    def _group() -> None:
        """A group, so that its one command has a name."""

    @app.command()
    def run(
        scenario: File,
        replications: Times = 10,
        warm_up: WarmUp = None,
        duration: Lasts = None,
        robots: Robots = None,
        seed: Seed = None,
        results: Into = None,
        as_json: AsJson = False,
    ) -> None:
        """Play a scenario, and say what its queue did, how sure that is, and what theory says."""
        from simulators.asked import scenario_asked_for, seconds_of
        from simulators.queue import lab

        plan = scenario_asked_for(scenario, robots, duration, seed)
        warm_up_s = None if warm_up is None else seconds_of("--warm-up", warm_up)
        folder = None if results is None else _folder(results)
        began = time.perf_counter()
        with Progress(console=out, transient=True, disable=as_json or not out.is_terminal) as progress:
            task = progress.add_task("replications", total=replications)
            found = lab.run(
                plan,
                scenario.parent,
                replications,
                warm_up_s,
                lambda done: progress.update(task, completed=done),
            )
        seconds = time.perf_counter() - began
        if folder is not None:
            folder.keep(found, plan, warm_up_s, _json(found, seconds))
        if as_json:
            print(_json(found, seconds))
        else:
            _tell(out, found, seconds)
            if folder is not None:
                out.print(f"fleetcast: results in {folder.folder}", markup=False)

    return app


def _folder(results: Path) -> RunFolder:
    from simulators.queue.result_folder import RunFolder

    return RunFolder(results, version("fleetcast"))


def _json(found: Findings, seconds: float) -> str:
    plain: dict[str, Any] = msgspec.to_builtins(found)
    return msgspec.json.encode(plain | {"seconds": round(seconds, 3)}).decode()


def _tell(out: Console, found: Findings, seconds: float) -> None:
    title = f"{found.name}: {found.jobs:,} jobs, {found.replications} times {found.lasts_s:,.0f} s"
    known = ["theory", "z"] if found.model else []
    table = Table(title=title, title_justify="left")
    for column in ("", "estimate", "interval of 95 %", *known):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, each in found.metrics.items():
        cells = [f"{each.estimate:,.4g}", f"{each.low:,.4g} to {each.high:,.4g}"]
        if found.model:
            cells.append("" if each.theory is None else f"{each.theory:,.4g}")
            cells.append("" if each.z is None else f"{each.z:+.1f}")
        table.add_row(name, *cells)
    out.print(table)
    if found.model:
        out.print(f"theory: {found.model}", markup=False)
    out.print(f"times in seconds; the first {found.warm_up_s:,.0f} s are left out", markup=False)
    for warning in dict.fromkeys(found.warnings):
        out.print(f"WARNING: {warning}", markup=False)
    out.print(f"fleetcast: {found.jobs / seconds:,.0f} jobs a second of {seconds:,.1f} s", markup=False)
