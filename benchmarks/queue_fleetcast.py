"""fleetcast plays a queue of the benchmark of simulators.

    python benchmarks/queue_fleetcast.py MODEL JOBS SEED

prints the line of JSON that queue_peers.py prints for the others.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from queue_models import MEAN_SERVICE, MODELS, Found, Model, report

from simulators.queue import fast
from simulators.queue.arrays import slots_of
from simulators.queue.figures import Replication
from simulators.queue.kernels.tally import Cell
from simulators.scenario import Scenario

UNIT_S = 0.01  # a unit of time: a scenario lasts a year at most, which is not enough for a billion jobs


def exponential(mean: float) -> dict[str, Any]:
    return {"kind": "exponential", "mean": f"{mean * UNIT_S:.9f}s"}


def scenario(model: Model, jobs: int) -> Scenario:
    """For as long as so many jobs take to come."""
    robots: dict[str, Any] = {"count": model.servers, "heartbeats": {"interval": "60s"}}
    if model.up:
        robots["breakdowns"] = {"up": exponential(model.up), "repair": exponential(model.repair)}
    classes = {
        f"class-{place}": {"service": exponential(MEAN_SERVICE), "weight": rate, "priority": place}
        | ({"patience": exponential(model.patience)} if model.patience else {})
        for place, rate in enumerate(model.rates)
    }
    return Scenario.model_validate(
        {
            "name": "queue",
            "duration": f"{jobs / model.rate * UNIT_S:.9f}s",
            "fleets": {"robots": robots},
            "queue": {"discipline": "priority"},
            "jobs": {"arrivals": {"kind": "poisson", "rate": model.rate / UNIT_S}, "classes": classes},
        }
    )


def run(name: str, jobs: int, seed: int) -> Found:
    plan = scenario(MODELS[name], jobs)
    tally = fast.play(plan, Path(), seed)
    replication = Replication(tally)
    figures = replication.figures(1, slots_of(plan))
    classes = replication.of_classes(1, list(plan.jobs.classes) if plan.jobs else [])
    stays, left = tally.cells[..., Cell.STAY].sum(), tally.cells[..., Cell.LEFT].sum()
    return Found(
        Wq=figures["Wq"] / UNIT_S,
        W=float(stays / left) / UNIT_S,
        Lq=figures["Lq"],
        utilisation=figures["utilisation"],
        P_wait=figures["P_wait"],
        Wq_p50=figures["Wq_p50"] / UNIT_S,
        Wq_p95=figures["Wq_p95"] / UNIT_S,
        Wq_p99=figures["Wq_p99"] / UNIT_S,
        Wq_classes=tuple(each["Wq"] / UNIT_S for each in classes.values()),
    )


if __name__ == "__main__":
    report("fleetcast", version("fleetcast"), run)
