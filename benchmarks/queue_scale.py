"""What the queue lab costs as it grows: time per job with the number of robots, memory with the number of
jobs, and a sweep of 200 points on two processes beside one.

    python benchmarks/queue_scale.py [--jobs 20000000] [--no-sweep]

Wanted: time per job grows no faster than the logarithm of the robots; a hundred times as many jobs take no
more memory; two processes are 1.7 times as fast as one. Rounds alternate; medians are told.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import log2
from pathlib import Path
from typing import Any

import fleetcast
from simulators.queue import experiment, fast
from simulators.queue.grid import grid_written
from simulators.scenario import Scenario

ROBOTS = (10, 100, 1_000, 10_000)
ROUNDS = 3
POINTS = ["load=0.5:0.905:0.0021"]
UNIT_S = 0.01


def scenario(robots: int, jobs: float, **queue: Any) -> Scenario:
    rate = 0.9 * robots / UNIT_S
    return Scenario.model_validate(
        {
            "name": "scale",
            "duration": f"{jobs / rate:.9f}s",
            "fleets": {"robots": {"count": robots, "heartbeats": {"interval": "60s"}}},
            "queue": queue,
            "jobs": {
                "arrivals": {"kind": "poisson", "rate": rate},
                "classes": {"all": {"service": {"kind": "exponential", "mean": f"{UNIT_S}s"}}},
            },
        }
    )


def seconds_of(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def nanoseconds(robots: int, jobs: int, **queue: Any) -> float:
    """Of processor time a job takes, after twenty services that fill the queue have been left out."""
    warm, whole = scenario(robots, 20 * robots, **queue), scenario(robots, jobs + 20 * robots, **queue)
    before = seconds_of(lambda: fast.play(warm, Path(), 1))
    return (seconds_of(lambda: fast.play(whole, Path(), 1)) - before) / jobs * 1e9


def growth(name: str, jobs: int, **queue: Any) -> bool:
    nanoseconds(10, 1_000, **queue)  # compiles
    found: dict[int, list[float]] = {robots: [] for robots in ROBOTS}
    for _ in range(ROUNDS):
        for robots in ROBOTS:
            found[robots].append(nanoseconds(robots, jobs, **queue))
    least = statistics.median(found[ROBOTS[0]])
    fits = True
    for robots, each in found.items():
        times, allowed = statistics.median(each) / least, log2(robots) / log2(ROBOTS[0])
        fits = fits and times <= allowed
        middle = f"{statistics.median(each):6.1f} ns a job, x {times:.2f}"
        print(f"  {name:9} {robots:6,} robots: {middle} (the logarithm: x {allowed:.2f})")
    return fits


def peak_mib(jobs: float) -> float:
    """Of a process of its own that plays so many."""
    words = [sys.executable, __file__, "--play", str(jobs)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def play(jobs: float) -> None:
    fast.play(scenario(10, jobs), Path(), 1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def sweep_s(processes: int) -> float:
    """Of the points alone: starting Ray takes as long whatever is played."""
    plan = scenario(4, 200_000)
    asks = experiment.asks_of(
        experiment.Sweep(scenario=plan, folder=Path(), grid=grid_written(POINTS), replications=10)
    )
    if processes == 1:
        return elapsed_s(asks, experiment.in_turn)
    with fleetcast.workers(processes, None) as spread:
        return elapsed_s(asks, spread)


def elapsed_s(asks: list[experiment.Ask], spread: experiment.Spread) -> float:
    experiment.run(asks[:4], spread)  # so that every process has what it needs
    began = time.perf_counter()
    experiment.run(asks, spread)
    return time.perf_counter() - began


def checks(jobs: int, sweep: bool) -> Iterator[bool]:
    print("time per job")
    yield growth("in order", jobs)
    yield growth("calendar", jobs // 4, discipline="random")
    small, large = peak_mib(jobs / 100), peak_mib(jobs)
    print(f"memory: {small:.0f} MiB for {jobs // 100:,} jobs, {large:.0f} MiB for {jobs:,}")
    yield large < small + 16
    if sweep:
        pairs = [(sweep_s(1), sweep_s(2)) for _ in range(ROUNDS)]
        one, two = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(f"a sweep of 200 points: {one:.1f} s on one process, {two:.1f} s on two: x {one / two:.2f}")
        yield one / two >= 1.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=float, default=2e7)
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--play", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.play:
        return play(given.play)
    held = [*checks(int(given.jobs), not given.no_sweep)]
    print("PASS" if all(held) else f"FAIL: {held}")
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
