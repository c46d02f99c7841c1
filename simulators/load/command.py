"""`fleetcast load`, but for where its actors live and who serves."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from rich.console import Console

from simulators.folders import make_folder
from simulators.load import console, results
from simulators.load.conductor import Conductor
from simulators.load.load_report import load_report
from simulators.load.outcome import Outcome
from simulators.load.venue import Venue
from simulators.scenario import Scenario


async def run(
    scenario: Scenario,
    folder: Path,
    venue: Venue,
    drain_s: float,
    results_in: Path,
    out: Console,
    version: str,
) -> Outcome:
    """Shows it, writes it down, says what came of it. The first Ctrl-C or SIGTERM ends the run early, and its
    results are kept and marked; the second ends this at once. Raises Misuse or Unavailable."""
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    with console.shown(out) as tell:
        conductor = Conductor(scenario, folder, venue, tell, drain_s, version)
        performance = await conductor.perform(stop)
    outcome = performance.outcome
    console.tell_outcome(out, outcome)
    place = make_folder(results_in, scenario.name, outcome.started_at)
    await asyncio.to_thread(results.write, place, performance, load_report)
    out.print(f"fleetcast: results in {place}", markup=False)
    return outcome
