"""`fleetcast queue`: what a fleet's queue does, in virtual time."""

from __future__ import annotations

import time
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

if TYPE_CHECKING:  # what a run needs takes most of a second to import, which other commands need not wait
    from simulators.queue.lab import Findings, Metric
    from simulators.queue.result_folder import RunFolder


class Engine(StrEnum):
    AUTO = "auto"
    FAST = "fast"
    PLAIN = "plain"
    PRODUCTION = "production"


File = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file; some are in scenarios/.")]
Times = Annotated[int, typer.Option(min=2, help="How often it is played, each time with other numbers.")]
Runs = Annotated[
    int,
    typer.Option(
        min=1, help="How often it is played, each time with other numbers; 1 is taken apart in time."
    ),
]
WarmUp = Annotated[
    str | None, typer.Option(help="What to leave out at the beginning, such as 5min; else until it settles.")
]
Lasts = Annotated[str | None, typer.Option(help="Such as 2h, instead of the scenario's.")]
Robots = Annotated[int | None, typer.Option(min=1, help="Robots in all, instead of the scenario's.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Instead of the scenario's.")]
Into = Annotated[
    Path | None, typer.Option("--results", help="A folder for tables, a summary and a report to look at.")
]
Precision = Annotated[
    float | None,
    typer.Option(
        min=0.0001,
        max=0.5,
        help="Play on until the intervals of L and W are no wider, to either side, than this share of them, "
        "such as 0.01.",
    ),
]
EngineName = Annotated[
    Engine, typer.Option(help="Who plays: the code of production, plain Python or compiled; the fastest.")
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
        replications: Runs = 10,
        warm_up: WarmUp = None,
        duration: Lasts = None,
        robots: Robots = None,
        seed: Seed = None,
        precision: Precision = None,
        engine: EngineName = Engine.AUTO,
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
                lambda done: progress.update(task, completed=done, total=max(done, replications)),
                precision=precision,
                engine=engine.value,
            )
        seconds = time.perf_counter() - began
        if folder is not None:
            folder.keep(found, plan, warm_up_s, engine.value, _json(found, seconds))
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
    out.print(_table(title, {"": found.metrics}, bool(found.model)))
    if len(found.classes) > 1:
        out.print(_table("", found.classes, bool(found.model)))
    if found.model:
        out.print(f"theory: {found.model}", markup=False)
    out.print(f"times in seconds; the first {found.warm_up_s:,.0f} s are left out", markup=False)
    for warning in dict.fromkeys(found.warnings):
        out.print(f"WARNING: {warning}", markup=False)
    out.print(f"fleetcast: {found.jobs / seconds:,.0f} jobs a second of {seconds:,.1f} s", markup=False)


def _table(title: str, parts: dict[str, dict[str, Metric]], known: bool) -> Table:
    """A part of the table for each class; second moments are for programs."""
    table = Table(title=title or None, title_justify="left")
    columns = ([] if "" in parts else ["class"]) + ["", "estimate", "interval of 95 %"]
    for column in columns + (["theory", "z"] if known else []):
        table.add_column(column, justify="left" if column in ("", "class") else "right", no_wrap=True)
    for part, metrics in parts.items():
        for number, (name, each) in enumerate(metrics.items()):
            if not name.endswith("_squared"):
                first = [part if number == 0 else ""] if part else []
                table.add_row(*first, name, *_cells(each, known))
        table.add_section()
    return table


def _cells(metric: Metric, known: bool) -> list[str]:
    cells = [f"{metric.estimate:,.4g}", f"{metric.low:,.4g} to {metric.high:,.4g}"]
    if known:
        cells.append("" if metric.theory is None else f"{metric.theory:,.4g}")
        cells.append("" if metric.z is None else f"{metric.z:+.1f}")
    return cells
