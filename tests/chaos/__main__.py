"""`python -m chaos`, the folder of the tests on the path: exits with 0 if all that was promised was kept."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from checkers.history import recorder_to
from rich.console import Console

from chaos.house import House
from chaos.options import Options, environment
from chaos.report import show
from chaos.run import Run, live
from chaos.verdict import Outcome, judge


async def carry_out(options: Options) -> Outcome:
    """Whatever happens, the server and all below it are gone in the end."""
    options.folder.mkdir(parents=True, exist_ok=True)
    record = options.folder / "history.jsonl"
    arguments = ["--store", options.store] if options.store else []
    house = House(options.folder, environment(options), arguments)
    try:
        url = await asyncio.to_thread(house.wait_until_up)
        run = Run(options, house, url, recorder_to(record))
        try:
            gathered = await live(run)
        finally:
            await run.close()
    except BaseException:
        house.close()
        raise
    left_behind = await asyncio.to_thread(house.close)
    return judge(run, gathered, record, left_behind)


def main(
    seconds: Annotated[float, typer.Option(min=10.0, help="Of faults; the quiet comes after.")] = 300.0,
    every: Annotated[float, typer.Option(min=1.0, help="Seconds between faults of actors.")] = 10.0,
    robots: Annotated[int, typer.Option(min=1)] = 200,
    jobs_per_second: Annotated[float, typer.Option(min=0.1)] = 25.0,
    seed: Annotated[int | None, typer.Option(help="Decides all faults. Default: a new one.")] = None,
    store: Annotated[str, typer.Option(help="postgresql://..., an empty one; default SQLite.")] = "",
    losses: Annotated[bool, typer.Option(help="Lose calls between actors.")] = True,
    keep: Annotated[Path | None, typer.Option(help="Folder for the record, the log and the store.")] = None,
) -> None:
    """Harm a fleet and see whether it keeps its promises."""
    out = Console(width=140, highlight=False)
    seed = secrets.randbelow(2**31) if seed is None else seed
    out.print(f"chaos: seed {seed}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # not without bringing down the server
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        options = Options(
            seed=seed,
            seconds=seconds,
            every_s=every,
            robots=robots,
            jobs_per_s=jobs_per_second,
            store=store,
            losses=losses,
            folder=keep or Path(folder),
        )
        outcome = asyncio.run(carry_out(options))
    show(outcome, out)
    sys.exit(0 if outcome.good else 1)


typer.run(main)
