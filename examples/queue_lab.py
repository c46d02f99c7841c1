"""Three questions that a study of a fleet's queue begins with, asked of the queue lab.

    python examples/queue_lab.py [--minutes 30] [--replications 10] [--into results/queue-lab]

1. How many robots keep the mean wait below five seconds?
2. How does the time in system grow with the load, beside what theory says? (load.svg, load.parquet)
3. Which is better for the same jobs: one robot more, or all robots as much faster? (policies.svg)

Each takes some lines of `simulators.queue`; what they print is worth as much as it is sure, so intervals
are of 95 % and warnings are for reading. With more `--minutes` and `--replications` they get narrower.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from simulators.queue import compare, simulate, sweep

WAIT_S = 5.0


def yard(minutes: float) -> dict[str, Any]:
    """A scenario as its file would have it: two kinds of jobs for robots that are alike."""
    return {
        "name": "yard",
        "seed": 1,
        "duration": f"{minutes} min",
        "fleets": {"arms": {"count": 3, "heartbeats": {"interval": "60s"}}},
        "jobs": {
            "arrivals": {"kind": "poisson", "rate": 0.25},
            "classes": {
                "weld": {"service": {"kind": "lognormal", "mean": "12s", "scv": 0.5}, "weight": 3},
                "inspect": {"service": {"kind": "exponential", "mean": "4s"}},
            },
        },
    }


def robots_for_wait(scenario: dict[str, Any], replications: int) -> int:
    """The fewest robots whose mean wait is below WAIT_S, the end of its interval included."""
    for robots in range(3, 10):
        found = simulate(scenario, {"robots": robots}, replications=replications).findings
        wait = found.metrics["Wq"]
        print(f"  {robots} robots: Wq {wait.estimate:6.2f} s, at 95 % {wait.low:.2f} to {wait.high:.2f} s")
        if wait.high < WAIT_S:
            return robots
    raise SystemExit("even nine robots are too few")


def load_curve(scenario: dict[str, Any], robots: int, replications: int, into: Path) -> None:
    """What was swept already is read from `into`: try it twice."""
    loads = [0.3, 0.5, 0.7, 0.8, 0.9]
    found = sweep(
        scenario,
        over={"load": loads, "robots": [1, robots]},
        replications=replications,
        results=into / "load-sweep",
    )
    print(found.frame().filter(metric="W").drop("metric", "z"))
    found.plot("W").save(str(into / "load.svg"))
    found.frame().write_parquet(into / "load.parquet")


def policies(scenario: dict[str, Any], robots: int, replications: int, into: Path) -> None:
    """Common random numbers: each policy meets the same jobs, so that a few replications tell them apart."""
    found = compare(
        scenario,
        [
            {"robots": robots},
            {"robots": robots + 1},
            {"robots": robots, "fleets.arms.speed": (robots + 1) / robots},
        ],
        replications=replications,
    )
    columns = ("policy", "estimate", "difference", "difference_low", "difference_high", "clear")
    print(found.frame().filter(metric="W").select(columns))
    found.plot().save(str(into / "policies.svg"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30.0, help="of virtual time, a replication")
    parser.add_argument("--replications", type=int, default=10)
    parser.add_argument("--into", type=Path, default=Path("results/queue-lab"))
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    scenario = yard(given.minutes)
    print(f"1. How many robots keep the mean wait below {WAIT_S:g} s?")
    robots = robots_for_wait(scenario, given.replications)
    print("2. How does the time in system grow with the load?")
    load_curve(scenario, robots, given.replications, given.into)
    print("3. One robot more, or all robots as much faster?")
    policies(scenario, robots, given.replications, given.into)
    print(f"charts and tables are in {given.into}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
