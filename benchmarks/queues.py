"""Jobs a second of what simulates queues: fleetcast, Ciw, SimPy, LINE's LDES and cimba, one core each.

    python benchmarks/queues.py [--models mm1,mm10] [--peers ciw,simpy] [--peers-only] [--seconds 5]

The same five queues (queue_models.py) for each, with the same statistics; rounds alternate, each measurement
is a process of its own, held to one core, and counts its processor time from after a short run that warms it
up. How many jobs it takes to last `--seconds` is tried out first. SimPy and cimba come twice: as their guides
write a queue (`simpy_guide`, `cimba_guide`), and as fast as we could make them (`simpy`, `cimba`). What is
wanted beside SimPy is wanted beside its guide: a queue made by hand, without its resources, is told and not
judged. Beside the
speed stands how long jobs waited, and how far that is from theory: at these loads, a million jobs of M/M/1
have an error of 2 %.

LDES wants other versions of what fleetcast uses, thus a Python of its own: `make .ldes/installed`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from queue_models import MEAN_SERVICE, MODELS, STEADY
from queue_peers import PEERS

from simulators.queue.theory import Moments, cobham, mmc

HERE = Path(__file__).parent
OURS = "fleetcast"
LDES_PYTHON = HERE.parent / ".ldes" / "bin" / "python"
FIRST_JOBS = 20_000
LONG_ENOUGH_S = 0.3  # to tell from it how many jobs it takes to last longer
PATIENCE_S = 600.0
FASTER = dict.fromkeys(STEADY, 1.0)
WANTED = {  # times as many jobs a second
    "ciw": {"mm10": 200.0},
    "simpy_guide": {"mm10": 100.0, "calendar": 40.0},
    "ldes": FASTER,
    "cimba": FASTER,
    "cimba_guide": FASTER,
}
CALENDAR_WQ = 0.0395  # of its Markov chain, played for 35 million jobs: no formula is known


class Plan(NamedTuple):
    rows: tuple[str, ...]
    models: tuple[str, ...]
    rounds: int
    seconds: float
    seed: int
    core: int
    python: str
    ldes_python: str

    def players(self, model: str) -> list[str]:
        return [row for row in self.rows if row == OURS or model in PEERS[row].models]


Said = dict[str, Any]  # by a measurement, in one line of JSON


# -- measurements


def command(plan: Plan, row: str) -> list[str]:
    if row == OURS:
        return [sys.executable, str(HERE / "queue_fleetcast.py")]
    return [plan.ldes_python if row == "ldes" else plan.python, str(HERE / "queue_peers.py"), row]


def measured(plan: Plan, row: str, model: str, jobs: int, seed: int) -> Said:
    """Of a child on one core. It ends the benchmark if it fails."""
    words = [*command(plan, row), model, str(jobs), str(seed)]
    child = subprocess.run(
        words, capture_output=True, text=True, timeout=PATIENCE_S, preexec_fn=held_to(plan.core)
    )
    if child.returncode:
        sys.exit(f"{' '.join(words)}\n{child.stderr}")
    said: Said = json.loads(child.stdout.splitlines()[-1])
    return said


def held_to(core: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {core})


def jobs_that_last(plan: Plan, row: str, model: str) -> int:
    jobs = FIRST_JOBS
    while (seconds := measured(plan, row, model, jobs, plan.seed)["seconds"]) < LONG_ENOUGH_S:
        jobs *= 10
    return round(jobs * plan.seconds / seconds)


def rounds(plan: Plan, model: str) -> dict[str, list[Said]]:
    rows = plan.players(model)
    jobs = {row: jobs_that_last(plan, row, model) for row in rows}
    seen: dict[str, list[Said]] = {row: [] for row in rows}
    for number in range(1, plan.rounds + 1):
        for row in rows:
            said = measured(plan, row, model, jobs[row], plan.seed + number)
            seen[row].append(said)
            print(f"{model}, round {number}, {row}: {per_s(said):,.0f} jobs a second", file=sys.stderr)
    return seen


# -- the table


def per_s(said: Said) -> float:
    return float(said["jobs"] / said["seconds"])


def middle(said: list[Said]) -> float:
    return statistics.median(map(per_s, said))


def expected(name: str) -> float:
    """How long a job waits on average."""
    model = MODELS[name]
    if model.up:
        return CALENDAR_WQ
    if len(model.rates) == 1:
        return mmc(model.rate, 1 / MEAN_SERVICE, model.servers).Wq
    service = Moments(MEAN_SERVICE, 2 * MEAN_SERVICE**2)
    waits = cobham(model.rates, [service] * len(model.rates))
    return sum(rate * wait for rate, wait in zip(model.rates, waits, strict=True)) / model.rate


def table(model: str, seen: dict[str, list[Said]]) -> None:
    print(f"{model}: jobs a second; a job waits {expected(model):.4f}")
    for row, said in seen.items():
        title = f"{row} {said[0]['version']}"
        print(f"  {title:18}{speed(said):40}{beside(row, seen):>9}   {waited(model, said)}")


def speed(said: list[Said]) -> str:
    speeds = [per_s(each) for each in said]
    return f"{middle(said):11,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})"


def beside(row: str, seen: dict[str, list[Said]]) -> str:
    """How many times as many we do."""
    return f"x {middle(seen[OURS]) / middle(seen[row]):.2f}" if OURS in seen and row != OURS else ""


def waited(model: str, said: list[Said]) -> str:
    waits = statistics.mean(each["Wq"] for each in said)
    return f"waits {waits:.4f} ({waits / expected(model) - 1:+.1%})"


def verdicts(found: dict[str, dict[str, list[Said]]]) -> Iterator[bool]:
    for peer, models in WANTED.items():
        for model, least in models.items():
            seen = found.get(model, {})
            if OURS in seen and peer in seen:
                yield verdict(model, peer, middle(seen[OURS]) / middle(seen[peer]), least)


def verdict(model: str, peer: str, times: float, least: float) -> bool:
    met = times >= least and times > 1
    print(f"  {model:10} times {peer:12} {times:7.2f}, wanted {least:g}: {'PASS' if met else 'FAIL'}")
    return met


# -- the command line


def some_of(all_of: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def chosen(text: str) -> tuple[str, ...]:
        named = tuple(text.split(","))
        if unknown := set(named) - set(all_of):
            raise argparse.ArgumentTypeError(f"none is called {', '.join(sorted(unknown))}")
        return named

    return chosen


def plan_given() -> Plan:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    models, peers = tuple(MODELS), tuple(PEERS)
    parser.add_argument("--models", type=some_of(models), default=models, help=", ".join(models))
    parser.add_argument("--peers", type=some_of(peers), default=peers, help=", ".join(peers))
    parser.add_argument("--peers-only", action="store_true", help="without fleetcast")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--python", default=sys.executable, help="which has Ciw, SimPy and cimba")
    parser.add_argument("--ldes-python", default=str(LDES_PYTHON), help="which has line-solver")
    given = parser.parse_args()
    rows = given.peers if given.peers_only else (OURS, *given.peers)
    options = (given.rounds, given.seconds, given.seed, given.core, given.python, given.ldes_python)
    return Plan(rows, given.models, *options)


def main() -> None:
    plan = plan_given()
    found = {model: rounds(plan, model) for model in plan.models}
    for model, seen in found.items():
        table(model, seen)
    sys.exit(0 if all([*verdicts(found)]) else 1)


if __name__ == "__main__":
    main()
