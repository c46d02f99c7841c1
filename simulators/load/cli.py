"""`fleetcast load`: run a scenario, compare two results, find the largest fleet that meets an objective."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fleet.errors import Misuse, Unavailable

if TYPE_CHECKING:  # what a run needs takes most of a second to import, which other commands need not wait
    from simulators.load.limit import LimitSearch
    from simulators.load.outcome import Outcome
    from simulators.load.venue import Venue
    from simulators.scenario import Scenario

FIND_S = "30s"


@dataclass(frozen=True)
class Where:
    """What the command line says of the server and of those who make the load."""

    url: str | None = None
    token: str | None = None
    serve: bool = False
    address: str | None = None
    num_cpus: int = 2


SetUp = Callable[[Where, Any], AbstractContextManager["Venue"]]  # for a Scenario
RunLoop = Callable[[Any], Any]  # an event loop for a coroutine

File = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario file; some are in scenarios/.")]
Url = Annotated[
    str | None, typer.Option(envvar="FLEETCAST_URL", help="The server; else http://127.0.0.1:8000.")
]
Token = Annotated[
    str | None,
    typer.Option(envvar="FLEETCAST_TOKEN", help="An operator's token; else one is made with JWT_SECRET_KEY."),
]
Serve = Annotated[bool, typer.Option("--serve", help="Start a server of its own, on this machine.")]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster whose nodes make the load; else this machine.")
]
Robots = Annotated[int | None, typer.Option(min=1, help="Robots in all, instead of the scenario's.")]
Lasts = Annotated[str | None, typer.Option(help="Such as 30s or 5min, instead of the scenario's.")]
Drain = Annotated[float, typer.Option(min=0.0, help="Seconds to wait for the last jobs.")]
Results = Annotated[Path, typer.Option(help="Where to put a folder with the results.")]
Cpus = Annotated[int, typer.Option(min=1, help="Logical CPUs of a Ray on this machine.")]


class _RunUnlessNamed(typer.core.TyperGroup):
    """`fleetcast load FILE` is `fleetcast load run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


def load_app(set_up: SetUp, run_loop: RunLoop, out: Console, version: str) -> typer.Typer:
    app = typer.Typer(
        cls=_RunUnlessNamed,
        no_args_is_help=True,
        help="Load-test a fleet: `fleetcast load SCENARIO`. Exit code 0: all thresholds met, 1: not, "
        "2: no valid result.",
    )

    def perform(where: Where, plan: Scenario, folder: Path, drain_s: float, results: Path) -> Outcome:
        from simulators.load import command

        with set_up(where, plan) as venue:
            try:
                outcome: Outcome = run_loop(command.run(plan, folder, venue, drain_s, results, out, version))
            except (KeyboardInterrupt, asyncio.CancelledError):
                raise Unavailable("stopped before the results were written") from None
        return outcome

    @app.command()
    def run(
        scenario: File,
        url: Url = None,
        token: Token = None,
        serve: Serve = False,
        address: Address = None,
        robots: Robots = None,
        duration: Lasts = None,
        drain: Drain = 30.0,
        results: Results = Path("results"),
        num_cpus: Cpus = 2,
    ) -> None:
        """Run a scenario, and say what came of it."""
        where = _where(url, token, serve, address, num_cpus)
        from simulators.asked import scenario_asked_for

        plan = scenario_asked_for(scenario, robots, duration)
        outcome = perform(where, plan, scenario.parent, drain, results)
        raise typer.Exit(outcome.exit_code)

    @app.command(name="compare")
    def compare_results(
        first: Annotated[Path, typer.Argument(help="The folder of a result.")],
        second: Annotated[Path, typer.Argument(help="Another, held against the first.")],
    ) -> None:
        """Put two results side by side, with intervals of 95 %."""
        _tell_comparison(out, first, second)

    @app.command()
    def find_limit(
        scenario: File,
        slo: Annotated[
            list[str],
            typer.Option(
                help="What must hold, such as 'heartbeat_to_watcher_p99 < 100ms'; more than one may."
            ),
        ],
        url: Url = None,
        token: Token = None,
        serve: Serve = False,
        address: Address = None,
        duration: Lasts = FIND_S,
        most: Annotated[int, typer.Option(min=1, max=1_000_000, help="Robots at most.")] = 20_000,
        precision: Annotated[float, typer.Option(min=0.01, max=1.0, help="When to stop, as a share.")] = 0.1,
        drain: Drain = 30.0,
        results: Results = Path("results"),
        num_cpus: Cpus = 2,
    ) -> None:
        """Find the largest fleet that meets an objective, beginning with the scenario's."""
        from simulators import scaled
        from simulators.asked import scenario_asked_for
        from simulators.load.limit import LimitSearch
        from simulators.scenario import thresholds_of

        where = _where(url, token, serve, address, num_cpus)
        objective = thresholds_of(dict(map(_split, slo)))
        plan = scenario_asked_for(scenario, None, duration).model_copy(update={"thresholds": objective})
        search = LimitSearch(plan.robots, most, precision, len(plan.fleets))
        tries = []
        while (robots := search.next_robots) is not None:
            out.print(f"fleetcast: trying {robots:,} robots", markup=False)
            tried = scaled.with_robots(plan, robots)
            outcome = perform(where, tried, scenario.parent, drain, results)
            if not outcome.complete:
                raise Unavailable(f"the search ended early: {'; '.join(outcome.incomplete_because)}")
            tries.append((robots, outcome))
            search.tell(robots, outcome.exit_code == 0)
        _tell_limit(out, tries, search)
        raise typer.Exit(0 if search.good else 1)

    return app


def _where(url: str | None, token: str | None, serve: bool, address: str | None, num_cpus: int) -> Where:
    if serve and (url or address):
        raise Misuse("--serve starts a server on this machine: leave out --url and --address")
    return Where(url, token, serve, address, num_cpus)


def _split(objective: str) -> tuple[str, Any]:
    """`metric < value` or `metric value`."""
    metric, _, wanted = objective.strip().partition(" ")
    if not wanted.strip():
        raise Misuse(f"--slo {objective!r}: an objective is a metric and a comparison, such as 'jobs_lost 0'")
    try:
        return metric, float(wanted)
    except ValueError:
        return metric, wanted.strip()


def _tell_comparison(out: Console, first: Path, second: Path) -> None:
    from simulators.load.compare import compare, read_result

    one, other = read_result(first), read_result(second)
    table = Table("", first.name, second.name, "change, %", "", title="mean, and interval of 95 %")
    for row in compare(one, other):
        change = "" if row.change is None else str(row.change.percent)
        table.add_row(row.measure, str(row.first), str(row.second), change, "differs" if row.differs else "")
    out.print(table)
    counts = Table("", first.name, second.name)
    for name in ("robots", "watchers", "sent", "received", "lost", "duplicated", "reordered"):
        counts.add_row(name, f"{getattr(one.outcome, name):,}", f"{getattr(other.outcome, name):,}")
    for name, summary in one.outcome.latencies_ms.items():
        if name in other.outcome.latencies_ms:
            values = (summary["p99"], other.outcome.latencies_ms[name]["p99"])
            counts.add_row(f"{name.replace('_', ' ')} p99, ms", *(f"{value:,.1f}" for value in values))
    out.print(counts)
    for result in (one, other):
        if result.outcome.exit_code == 2:
            why = "; ".join(result.outcome.invalid_because + result.outcome.incomplete_because)
            out.print(f"{result.folder.name} is no valid result: {why}", markup=False)


def _tell_limit(out: Console, tries: list[tuple[int, Outcome]], search: LimitSearch) -> None:
    from simulators.load.console import VERDICTS

    metrics = [verdict.metric for verdict in tries[0][1].thresholds]
    table = Table("robots", *metrics, "")
    for robots, outcome in sorted(tries, key=lambda each: each[0]):
        values = ["?" if each.value is None else f"{each.value:,.4g}" for each in outcome.thresholds]
        table.add_row(f"{robots:,}", *values, VERDICTS[outcome.exit_code])
    out.print(table)
    if search.good is None:
        out.print("fleetcast: no fleet was small enough to meet it", markup=False)
    elif search.bad is None:
        out.print(f"fleetcast: {search.good:,} robots meet it, and more were not tried", markup=False)
    else:
        out.print(f"fleetcast: {search.good:,} robots meet it, {search.bad:,} do not", markup=False)
