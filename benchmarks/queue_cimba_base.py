"""What all models of cimba in the benchmark of simulators of queues have, and how they are played.

Waits go into cimba's datasets, and out as captured samples.
"""

import cimba as cb
from cimba import inputs
from queue_models import MEAN_SERVICE, Found, Model, found


def dataset() -> cb.Dataset:
    captured = cb.Dataset()
    captured.capture()
    return captured


class Queue(cb.Model):
    """What is called `_2` is of the less urgent class, if there are two. `worked` is of all servers, `there`
    of all jobs; it may be left at 0 where it is no more than how long they waited and were served."""

    jobs: cb.Param[int] = 1
    jobs_2: cb.Param[int] = 0
    gap: cb.Input[float] = inputs.dist.exponential(mean=1.0)
    gap_2: cb.Input[float] = inputs.dist.exponential(mean=1.0)
    service: cb.Input[float] = inputs.dist.exponential(mean=MEAN_SERVICE)
    waits: cb.Dataset = dataset()
    waits_2: cb.Dataset = dataset()
    worked: float = 0.0
    there: float = 0.0
    all_worked: cb.Output[float]
    all_there: cb.Output[float]
    lasted: cb.Output[float]

    @cb.on_end
    def tells(self):
        self.all_worked = self.worked
        self.all_there = self.there
        self.lasted = cb.now()


def play(model: Model, queue: Queue, jobs: int, seed: int) -> Found:
    fill(model, queue, jobs)
    experiment = cb.Experiment(queue, window=cb.Window.until_idle(), seed=seed)
    what = experiment.run(workers=1, on_failure="raise")[queue]
    waits = [each.trial(0, 0)[1] for each in (what.waits, what.waits_2)[: len(model.rates)]]
    worked, there = float(what.all_worked[0, 0]), float(what.all_there[0, 0])
    there = there or sum(float(each.sum()) for each in waits) + worked
    return found(model, waits, there, worked, float(what.lasted[0, 0]))


def fill(model: Model, queue: Queue, jobs: int) -> None:
    queue.jobs, queue.gap = model.shares(jobs)[0], inputs.dist.exponential(mean=1 / model.rates[0])
    if len(model.rates) > 1:
        queue.jobs_2, queue.gap_2 = model.shares(jobs)[1], inputs.dist.exponential(mean=1 / model.rates[1])
