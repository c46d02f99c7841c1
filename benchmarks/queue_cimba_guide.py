"""cimba as its guide writes a queue: a process that brings the jobs, and one for each server, with a store
between them, which keeps the times at which they came.

Where one class is more urgent, the store is one with priorities, and the sign of a time says the class.
"""

from functools import lru_cache

import cimba as cb
from queue_cimba_base import Kept, play_kept
from queue_models import MODELS, Found


def run(name: str, jobs: int, seed: int) -> Found:
    model = MODELS[name]
    return play_kept(model, (two_classes if len(model.rates) > 1 else one_class)(model.servers)(), jobs, seed)


@lru_cache
def one_class(servers: int) -> type[Kept]:
    class OneClass(Kept):
        line: cb.Store[float]

        @cb.process
        def arrivals(self):
            for _ in range(self.jobs):
                cb.hold(self.gap.next())
                self.line.put(cb.now())

        @cb.process(copies=servers)
        def server(self):
            while True:
                came = self.line.get()
                self.waits.record(cb.now() - came)
                takes = self.service.next()
                self.worked += takes
                cb.hold(takes)

    return OneClass


@lru_cache
def two_classes(servers: int) -> type[Kept]:
    class TwoClasses(Kept):
        line: cb.PriorityStore[float]

        @cb.process
        def arrivals(self):
            for _ in range(self.jobs):
                cb.hold(self.gap.next())
                self.line.put(-cb.now(), 1)

        @cb.process
        def arrivals_2(self):
            for _ in range(self.jobs_2):
                cb.hold(self.gap_2.next())
                self.line.put(cb.now(), 0)

        @cb.process(copies=servers)
        def server(self):
            while True:
                came = self.line.get()
                if came < 0:
                    self.waits.record(cb.now() + came)
                else:
                    self.waits_2.record(cb.now() - came)
                takes = self.service.next()
                self.worked += takes
                cb.hold(takes)

    return TwoClasses
