"""The queues that the benchmark of simulators plays, what each run says of them, and how long it took.

Times are in units of the mean service, rates per such unit. Everything is exponential. It needs no more than
numpy, since some peers have an environment of their own.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

MEAN_SERVICE = 1.0
WARM_UP_JOBS = 2_000
PERCENTS = (50, 95, 99)


@dataclass(frozen=True)
class Model:
    """Jobs of each class come at `rates`; the first class is the most urgent, and interrupts nobody. Means:
    who waits gives up after `patience`; a server, working or idle, breaks after `up` and is mended after
    `repair`, and goes on with the job that it was at. 0 is never."""

    servers: int
    rates: tuple[float, ...]
    patience: float = 0.0
    up: float = 0.0
    repair: float = 0.0

    @property
    def rate(self) -> float:
        return sum(self.rates)

    def shares(self, jobs: int) -> list[int]:
        """Of so many jobs, how many are of each class."""
        urgent = [round(jobs * rate / self.rate) for rate in self.rates[:-1]]
        return [*urgent, jobs - sum(urgent)]


MODELS = {
    "mm1": Model(1, (0.9,)),
    "mm10": Model(10, (9.0,)),
    "mm64": Model(64, (57.6,)),
    "priority": Model(1, (0.3, 0.6)),
    "calendar": Model(64, (28.8, 28.8), patience=2.0, up=50.0, repair=2.0),
}
STEADY = ("mm1", "mm10", "mm64", "priority")  # that have neither patience nor breakdowns


@dataclass(frozen=True)
class Found:
    """Of all jobs, those that gave up included: `Wq` is how long they waited, `W` how long they were there;
    `Wq_classes` is `Wq` of each class. `Lq` is how many waited on average over time, `utilisation` is the
    share of the servers that worked. None is what a peer does not say."""

    Wq: float
    W: float
    Lq: float
    utilisation: float
    P_wait: float | None = None
    Wq_p50: float | None = None
    Wq_p95: float | None = None
    Wq_p99: float | None = None
    Wq_classes: tuple[float, ...] | None = None


Waits = Sequence[float] | np.ndarray


def found(model: Model, waits: Sequence[Waits], there: float, worked: float, lasted: float) -> Found:
    """From the wait of each job, by class; the time that all jobs were there, and the time that all servers
    worked, summed; and how long the run was. What waits is the sum of the waits, by the time."""
    classes = [np.asarray(each, dtype=np.float64) for each in waits]
    every = np.concatenate(classes) if len(classes) > 1 else classes[0]
    return Found(
        float(every.mean()),
        there / len(every),
        float(every.sum()) / lasted,
        worked / (model.servers * lasted),
        float(np.mean(every > 0)),
        *np.percentile(every, PERCENTS).tolist(),
        Wq_classes=tuple(float(each.mean()) for each in classes),
    )


Run = Callable[[str, int, int], Found]


def cpu_s() -> float:
    """Of this process and the children that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(run: Run, model: str, jobs: int, seed: int) -> tuple[float, Found]:
    """Seconds of processor time, statistics included, after a short run that imports, compiles and warms."""
    run(model, WARM_UP_JOBS, seed)
    gc.collect()
    before = cpu_s()
    what = run(model, jobs, seed)
    return cpu_s() - before, what


def report(name: str, version: str, run: Run) -> None:
    """To the command line `... MODEL JOBS SEED`, as a line of JSON."""
    model, jobs, seed = sys.argv[-3], int(sys.argv[-2]), int(sys.argv[-1])
    seconds, what = measure(run, model, jobs, seed)
    about = {"peer": name, "version": version, "model": model, "jobs": jobs, "seconds": seconds}
    print(json.dumps(about | asdict(what)))
