"""cimba for speed: a compiled model of events alone, and a queue made by hand in its arrays.

Arrivals and departures are events that put the next into cimba's own event queue. Processes, as its guide
writes them (queue_cimba_guide.py), are half as fast: each has a stack, and changing stacks costs. Keeping
every wait in its datasets halves the speed again, thus they are counted by their length.
"""

import cimba as cb
from queue_cimba_base import Counted, play_counted
from queue_cimba_calendar import yard
from queue_models import MODELS, Found

PLACES = 1 << 18  # in a line, by a power of two; theirs are far shorter
LAST = PLACES - 1


class OneLine(Counted):
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
            self.at_once += 1
            takes = self.service.next()
            self.worked += takes
            cb.schedule(self.leaves, takes)
        else:
            self.line[(self.came - 1) & LAST] = cb.now()

    @cb.event
    def leaves(self):
        if self.begun < self.came:
            self.waited(cb.now() - self.line[self.begun & LAST])
            self.begun += 1
            takes = self.service.next()
            self.worked += takes
            cb.schedule(self.leaves, takes)
        else:
            self.idle += 1


class TwoLines(Counted):
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
        self.came += 1
        if self.came < self.jobs:
            cb.schedule(self.arrives, self.gap.next())
        if self.idle > 0:
            self.idle -= 1
            self.begun += 1
            self.at_once += 1
            self.begins()
        else:
            self.line[(self.came - 1) & LAST] = cb.now()

    @cb.event
    def arrives_2(self):
        self.came_2 += 1
        if self.came_2 < self.jobs_2:
            cb.schedule(self.arrives_2, self.gap_2.next())
        if self.idle > 0:
            self.idle -= 1
            self.begun_2 += 1
            self.at_once_2 += 1
            self.begins()
        else:
            self.line_2[(self.came_2 - 1) & LAST] = cb.now()

    @cb.event
    def leaves(self):
        if self.begun < self.came:
            self.waited(cb.now() - self.line[self.begun & LAST])
            self.begun += 1
            self.begins()
        elif self.begun_2 < self.came_2:
            self.waited_2(cb.now() - self.line_2[self.begun_2 & LAST])
            self.begun_2 += 1
            self.begins()
        else:
            self.idle += 1

    @cb.function
    def begins(self) -> None:
        takes = self.service.next()
        self.worked += takes
        cb.schedule(self.leaves, takes)


def run(name: str, jobs: int, seed: int) -> Found:
    """Until the last job has left; with breakdowns, until the last has come."""
    model = MODELS[name]
    if model.up:
        return play_counted(model, yard(model), jobs, seed)
    queue = TwoLines() if len(model.rates) > 1 else OneLine()
    queue.servers = model.servers
    return play_counted(model, queue, jobs, seed)
