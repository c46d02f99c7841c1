"""cimba for speed: a compiled model of events alone, and a queue made by hand in its arrays.

Arrivals and departures are events that put the next into cimba's own event queue. Processes, as its guide
writes them (queue_cimba_guide.py), are half as fast: each has a stack, and changing stacks costs. Waits go
into its datasets, and out as captured samples.
"""

import cimba as cb
from cimba import inputs
from queue_models import MEAN_SERVICE, MODELS, Found, Model, found

PLACES = 1 << 18  # in a line, by a power of two; theirs are far shorter
LAST = PLACES - 1


def dataset() -> cb.Dataset:
    captured = cb.Dataset()
    captured.capture()
    return captured


class Queue(cb.Model):
    """What is called `_2` is of the less urgent class, if there are two."""

    jobs: cb.Param[int] = 1
    jobs_2: cb.Param[int] = 0
    gap: cb.Input[float] = inputs.dist.exponential(mean=1.0)
    gap_2: cb.Input[float] = inputs.dist.exponential(mean=1.0)
    service: cb.Input[float] = inputs.dist.exponential(mean=MEAN_SERVICE)
    waits: cb.Dataset = dataset()
    waits_2: cb.Dataset = dataset()
    worked: float = 0.0
    all_worked: cb.Output[float]
    lasted: cb.Output[float]

    @cb.on_end
    def tells(self):
        self.all_worked = self.worked
        self.lasted = cb.now()


class OneLine(Queue):
    """`came` and `begun` count jobs."""

    servers: cb.Param[int] = 1
    line: cb.Array[float] = cb.Array(PLACES)
    came: int = 0
    begun: int = 0
    idle: int = 0

    @cb.on_start
    def opens(self):
        self.idle = self.servers
        cb.schedule(self.arrives, self.gap.next())

    @cb.event
    def arrives(self):
        self.came += 1
        if self.came < self.jobs:
            cb.schedule(self.arrives, self.gap.next())
        if self.idle > 0:
            self.idle -= 1
            self.begun += 1
            self.waits.record(0.0)
            takes = self.service.next()
            self.worked += takes
            cb.schedule(self.leaves, takes)
        else:
            self.line[(self.came - 1) & LAST] = cb.now()

    @cb.event
    def leaves(self):
        if self.begun < self.came:
            self.waits.record(cb.now() - self.line[self.begun & LAST])
            self.begun += 1
            takes = self.service.next()
            self.worked += takes
            cb.schedule(self.leaves, takes)
        else:
            self.idle += 1


class TwoLines(Queue):
    servers: cb.Param[int] = 1
    line: cb.Array[float] = cb.Array(PLACES)
    line_2: cb.Array[float] = cb.Array(PLACES)
    came: int = 0
    came_2: int = 0
    begun: int = 0
    begun_2: int = 0
    idle: int = 0

    @cb.on_start
    def opens(self):
        self.idle = self.servers
        cb.schedule(self.arrives, self.gap.next())
        cb.schedule(self.arrives_2, self.gap_2.next())

    @cb.event
    def arrives(self):
        self.line[self.came & LAST] = cb.now()
        self.came += 1
        if self.came < self.jobs:
            cb.schedule(self.arrives, self.gap.next())
        if self.idle > 0:
            self.idle -= 1
            self.begins()

    @cb.event
    def arrives_2(self):
        self.line_2[self.came_2 & LAST] = cb.now()
        self.came_2 += 1
        if self.came_2 < self.jobs_2:
            cb.schedule(self.arrives_2, self.gap_2.next())
        if self.idle > 0:
            self.idle -= 1
            self.begins()

    @cb.event
    def leaves(self):
        if self.begun < self.came or self.begun_2 < self.came_2:
            self.begins()
        else:
            self.idle += 1

    @cb.function
    def begins(self) -> None:
        if self.begun < self.came:
            self.waits.record(cb.now() - self.line[self.begun & LAST])
            self.begun += 1
        else:
            self.waits_2.record(cb.now() - self.line_2[self.begun_2 & LAST])
            self.begun_2 += 1
        takes = self.service.next()
        self.worked += takes
        cb.schedule(self.leaves, takes)


def run(name: str, jobs: int, seed: int) -> Found:
    model = MODELS[name]
    queue = TwoLines() if len(model.rates) > 1 else OneLine()
    queue.servers = model.servers
    return play(model, queue, jobs, seed)


def play(model: Model, queue: Queue, jobs: int, seed: int) -> Found:
    """Until the last job has left."""
    fill(model, queue, jobs)
    experiment = cb.Experiment(queue, window=cb.Window.until_idle(), seed=seed)
    what = experiment.run(workers=1, on_failure="raise")[queue]
    waits = [each.trial(0, 0)[1] for each in (what.waits, what.waits_2)[: len(model.rates)]]
    worked, lasted = float(what.all_worked[0, 0]), float(what.lasted[0, 0])
    return found(model, waits, sum(float(each.sum()) for each in waits) + worked, worked, lasted)


def fill(model: Model, queue: Queue, jobs: int) -> None:
    queue.jobs, queue.gap = model.shares(jobs)[0], inputs.dist.exponential(mean=1 / model.rates[0])
    if len(model.rates) > 1:
        queue.jobs_2, queue.gap_2 = model.shares(jobs)[1], inputs.dist.exponential(mean=1 / model.rates[1])
