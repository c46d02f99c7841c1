"""What all models of cimba have in the benchmark of simulators of queues, and how they are played."""

import cimba as cb
import numpy as np
from cimba import inputs
from cimba.results import InstanceResults
from queue_models import MEAN_SERVICE, Found, Model, found

BINS = 1 << 16
BINS_PER_UNIT = 100  # for one server; the more there are, the shorter are the waits


class Queue(cb.Model):
    """What is called `_2` is of the less urgent class, if there are two. `worked` is of all servers."""

    jobs: cb.Param[int] = 1
    jobs_2: cb.Param[int] = 0
    gap: cb.Input[float] = inputs.dist.exponential(mean=1.0)
    gap_2: cb.Input[float] = inputs.dist.exponential(mean=1.0)
    service: cb.Input[float] = inputs.dist.exponential(mean=MEAN_SERVICE)
    worked: float = 0.0
    all_worked: cb.Output[float]
    lasted: cb.Output[float]

    @cb.on_end
    def says(self):
        self.all_worked = self.worked
        self.lasted = cb.now()


def fill(model: Model, queue: Queue, jobs: int) -> None:
    queue.jobs, queue.gap = model.shares(jobs)[0], inputs.dist.exponential(mean=1 / model.rates[0])
    if len(model.rates) > 1:
        queue.jobs_2, queue.gap_2 = model.shares(jobs)[1], inputs.dist.exponential(mean=1 / model.rates[1])


def played(model: Model, queue: Queue, jobs: int, seed: int) -> InstanceResults:
    fill(model, queue, jobs)
    experiment = cb.Experiment(queue, window=cb.Window.until_idle(), seed=seed)
    results: InstanceResults = experiment.run(workers=1, on_failure="raise")[queue]
    return results


# -- every wait is kept


def dataset() -> cb.Dataset:
    captured = cb.Dataset()
    captured.capture()
    return captured


class Kept(Queue):
    waits: cb.Dataset = dataset()
    waits_2: cb.Dataset = dataset()


def play_kept(model: Model, queue: Kept, jobs: int, seed: int) -> Found:
    """Of models without patience and breakdowns."""
    what = played(model, queue, jobs, seed)
    waits = [each.trial(0, 0)[1] for each in (what.waits, what.waits_2)[: len(model.rates)]]
    worked = float(what.all_worked[0, 0])
    there = sum(float(each.sum()) for each in waits) + worked
    return found(model, waits, there, worked, float(what.lasted[0, 0]))


# -- waits are counted by their length


class Counted(Queue):
    """`per_unit` bins are a unit of time. `at_once` is of the jobs that did not wait, `count` of those that
    did; `there` is how long all jobs were there, if that is more than their waits and what was worked."""

    per_unit: cb.Param[float] = 1.0
    bins: cb.Array[int] = cb.Array(BINS)
    at_once: int = 0
    at_once_2: int = 0
    count: int = 0
    count_2: int = 0
    wait: float = 0.0
    wait_2: float = 0.0
    there: float = 0.0
    jobs_at_once: cb.Output[int]
    jobs_at_once_2: cb.Output[int]
    jobs_late: cb.Output[int]
    jobs_late_2: cb.Output[int]
    all_wait: cb.Output[float]
    all_wait_2: cb.Output[float]
    all_there: cb.Output[float]
    p50: cb.Output[float]
    p95: cb.Output[float]
    p99: cb.Output[float]

    @cb.function
    def waited(self, time: float) -> None:
        self.count += 1
        self.wait += time
        self.bins[min(int(time * self.per_unit), BINS - 1)] += 1

    @cb.function
    def waited_2(self, time: float) -> None:
        self.count_2 += 1
        self.wait_2 += time
        self.bins[min(int(time * self.per_unit), BINS - 1)] += 1

    @cb.function
    def within(self, share: float) -> float:
        """The wait that this share of the jobs does not exceed: the middle of its bin."""
        at_once = self.at_once + self.at_once_2
        left = share * (at_once + self.count + self.count_2) - at_once
        if left <= 0:
            return 0.0
        place = 0
        while left > self.bins[place]:
            left -= self.bins[place]
            place += 1
        return (place + 0.5) / self.per_unit

    @cb.on_end
    def counts(self):
        self.jobs_at_once, self.jobs_at_once_2 = self.at_once, self.at_once_2
        self.jobs_late, self.jobs_late_2 = self.count, self.count_2
        self.all_wait, self.all_wait_2 = self.wait, self.wait_2
        self.all_there = self.there
        self.p50, self.p95, self.p99 = self.within(0.50), self.within(0.95), self.within(0.99)


def play_counted(model: Model, queue: Counted, jobs: int, seed: int) -> Found:
    queue.per_unit = BINS_PER_UNIT * model.servers
    what = played(model, queue, jobs, seed)
    late = np.array([what.jobs_late[0, 0], what.jobs_late_2[0, 0]])
    each = late + np.array([what.jobs_at_once[0, 0], what.jobs_at_once_2[0, 0]])
    waits = np.array([what.all_wait[0, 0], what.all_wait_2[0, 0]])
    worked, lasted = float(what.all_worked[0, 0]), float(what.lasted[0, 0])
    there = float(what.all_there[0, 0]) or float(waits.sum()) + worked
    count, classes = float(each.sum()), len(model.rates)
    return Found(
        Wq=float(waits.sum()) / count,
        W=there / count,
        Lq=float(waits.sum()) / lasted,
        utilisation=worked / (model.servers * lasted),
        P_wait=float(late.sum()) / count,
        Wq_p50=float(what.p50[0, 0]),
        Wq_p95=float(what.p95[0, 0]),
        Wq_p99=float(what.p99[0, 0]),
        Wq_classes=tuple((waits[:classes] / each[:classes]).tolist()),
    )
