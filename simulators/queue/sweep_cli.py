"""`fleetcast queue sweep`: a scenario at every point of a grid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fleet.errors import Unavailable
from simulators.queue.cli import AsJson, File, Lasts, Robots, Seed, Times, WarmUp
from simulators.queue.words import with_error

if TYPE_CHECKING:  # what a run needs takes most of a second to import, which other commands need not wait
    from simulators.queue.experiment import Point, Sweep, Workers
    from simulators.queue.sweep_folder import SweepFolder

MOST_ROWS, MOST_WARNINGS = 50, 10  # on a screen; the files have all
SHOWN = ("Wq", "W", "utilisation")

Over = Annotated[
    list[str],
    typer.Option(
        metavar="NAME=VALUES",
        help="An axis: robots=10:50:10, load=0.5,0.8, or any field, such as fleets.arms.speed=1,2. "
        "More than one may.",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        help="The folder for the results; one with the same sweep goes on where it was left. "
        "Else results/<name>-<time>."
    ),
]
Processes = Annotated[
    int | None, typer.Option(min=1, help="How many points at once; else as many as there are processors.")
]
Address = Annotated[str | None, typer.Option(help="Ray cluster that plays it; else this machine.")]


def add_sweep(app: typer.Typer, out: Console, workers: Workers, version: str) -> None:
    """To the commands of `fleetcast queue`."""

    @app.command()
    def sweep(
        scenario: File,
        over: Over,
        replications: Times = 10,
        warm_up: WarmUp = None,
        duration: Lasts = None,
        robots: Robots = None,
        seed: Seed = None,
        results: Results = None,
        processes: Processes = None,
        address: Address = None,
        as_json: AsJson = False,
    ) -> None:
        """Play a scenario at every combination of values, and keep the figures of each in a table."""
        from simulators.asked import scenario_asked_for, seconds_of
        from simulators.queue import experiment
        from simulators.queue.grid import grid_written
        from simulators.queue.queue_report import sweep_report
        from simulators.queue.sweep_folder import SweepFolder

        asked = experiment.Sweep(
            scenario=scenario_asked_for(scenario, robots, duration, seed),
            folder=scenario.parent,
            grid=grid_written(over),
            replications=replications,
            warm_up_s=None if warm_up is None else seconds_of("--warm-up", warm_up),
        )
        asks = experiment.asks_of(asked)
        folder = SweepFolder(results or _new_folder(asked.scenario.name), asked, version)
        known = folder.known()
        few = address is None and (processes == 1 or len(asks) - len(known) <= 1)
        spread_by = contextlib.nullcontext(experiment.in_turn) if few else workers(processes, address)
        with _kept(folder, len(asks)), spread_by as spread, _shown(out, as_json, len(asks)) as tell:
            points = experiment.run(asks, spread, known, folder.keep, tell)
        folder.finish(points)
        folder.keep_report(sweep_report(asked, points, version))
        if as_json:
            print(_json(asked, points, folder.folder))
        else:
            _tell(out, asked, points, folder.folder)


def _new_folder(name: str) -> Path:
    from simulators.folders import make_folder

    return make_folder(Path("results"), name, datetime.now(UTC).isoformat())


@contextlib.contextmanager
def _kept(folder: SweepFolder, points: int) -> Iterator[None]:
    """Who interrupts it is told how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Unavailable(
            f"stopped with {len(folder.known())} of {points} points done; the same command with "
            f"--results {folder.folder} goes on from there"
        ) from None


@contextlib.contextmanager
def _shown(out: Console, quiet: bool, total: int) -> Iterator[Any]:
    with Progress(console=out, transient=True, disable=quiet or not out.is_terminal) as progress:
        task = progress.add_task("points", total=total)
        yield lambda done: progress.update(task, completed=done)


def _json(asked: Sweep, points: Sequence[Point], folder: Path) -> str:
    return msgspec.json.encode(
        {
            "name": asked.scenario.name,
            "seed": asked.scenario.seed,
            "replications": asked.replications,
            "axes": {axis.name: axis.values for axis in asked.grid.axes},
            "points": points,
            "seconds": round(sum(point.seconds for point in points), 3),
            "folder": str(folder),
        }
    ).decode()


def _tell(out: Console, asked: Sweep, points: Sequence[Point], folder: Path) -> None:
    from simulators.queue.variation import told

    names = [axis.name for axis in asked.grid.axes]
    shown = [name for name in SHOWN if any(name in point.findings.metrics for point in points)]
    title = f"{asked.scenario.name}: {len(points):,} points, {asked.replications} times each; ± at 95 %"
    table = Table(title=title, title_justify="left")
    for column in (*names, *shown):
        table.add_column(column, justify="right")
    for point in points[:MOST_ROWS]:
        table.add_row(*(told(point.changes[name]) for name in names), *_cells(point, shown))
    out.print(table, soft_wrap=False)
    if len(points) > MOST_ROWS:
        out.print(f"and {len(points) - MOST_ROWS:,} more", markup=False)
    _warn(out, points)
    out.print(f"fleetcast: results in {folder}", markup=False)


def _cells(point: Point, shown: Sequence[str]) -> Iterator[str]:
    for name in shown:
        metric = point.findings.metrics.get(name)
        yield "" if metric is None else with_error(metric.estimate, metric.high)


def _warn(out: Console, points: Sequence[Point]) -> None:
    from simulators.queue.experiment import warnings_of

    warnings = warnings_of(points)
    for warning in warnings[:MOST_WARNINGS]:
        out.print(f"WARNING: {warning}", markup=False)
    if len(warnings) > MOST_WARNINGS:
        out.print(f"WARNING: and {len(warnings) - MOST_WARNINGS:,} more", markup=False)
