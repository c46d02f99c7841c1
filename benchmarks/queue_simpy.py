"""SimPy for speed: its event loop and its processes, and a queue made by hand.

Servers are processes that take jobs from a deque of the times at which they came; who has nothing to do waits
for an event. A job is no process, and neither its coming nor its turn is an event of its own. Random numbers
are drawn by numpy, ten thousand at a time. That is three to five times as fast as SimPy's own resources
(queue_simpy_guide.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import simpy
from queue_models import MEAN_SERVICE, MODELS, Found, Model, found

Steps = Iterator[Any]


def run(name: str, jobs: int, seed: int) -> Found:
    model = MODELS[name]
    return (breaking if model.up else steady)(model, jobs, np.random.default_rng(seed))


def draws(rng: np.random.Generator, mean: float) -> Callable[[], float]:
    def drawn() -> Iterator[float]:
        while True:
            yield from rng.exponential(mean, 10_000).tolist()

    return drawn().__next__


def steady(model: Model, jobs: int, rng: np.random.Generator) -> Found:
    """Until the last job has left."""
    env, service = simpy.Environment(), draws(rng, MEAN_SERVICE)
    lines: list[deque[float]] = [deque() for _ in model.rates]
    waits: list[list[float]] = [[] for _ in model.rates]
    taking = [(line, record.append) for line, record in zip(lines, waits, strict=True)]
    idle: list[simpy.Event] = []
    worked = 0.0

    def arrivals(gap: Callable[[], float], count: int, line: deque[float], waits: list[float]) -> Steps:
        timeout = env.timeout
        for _ in range(count):
            yield timeout(gap())
            if idle:
                waits.append(0.0)
                idle.pop().succeed()
            else:
                line.append(env.now)

    def server() -> Steps:
        nonlocal worked
        timeout, event = env.timeout, env.event
        yield rest(event())
        while True:
            takes = service()
            worked += takes
            yield timeout(takes)
            for line, record in taking:
                if line:
                    record(env.now - line.popleft())
                    break
            else:
                yield rest(event())

    def rest(event: simpy.Event) -> simpy.Event:
        idle.append(event)
        return event

    for rate, count, line, record in zip(model.rates, model.shares(jobs), lines, waits, strict=True):
        env.process(arrivals(draws(rng, 1 / rate), count, line, record))
    for _ in range(model.servers):
        env.process(server())
    env.run()
    return found(model, waits, sum(map(sum, waits)) + worked, worked, env.now)


# -- with patience and breakdowns


class Job:
    __slots__ = ("came", "kind", "waiting")

    def __init__(self, came: float, kind: int) -> None:
        self.came = came
        self.kind = kind
        self.waiting = True


class Yard:
    """Servers that break, and jobs that give up. Only a job that has to wait has a timer; one that is taken
    leaves it to run out."""

    def __init__(self, model: Model, rng: np.random.Generator) -> None:
        self.env = simpy.Environment()
        self.lines: list[deque[Job]] = [deque() for _ in model.rates]
        self.waits: list[list[float]] = [[] for _ in model.rates]
        self.idle: list[simpy.Event] = []
        self.service, self.patience = draws(rng, MEAN_SERVICE), draws(rng, model.patience)
        self.up, self.repair = draws(rng, model.up), draws(rng, model.repair)
        self.worked = self.there = 0.0

    def arrivals(self, gap: Callable[[], float], count: int, kind: int) -> Steps:
        env, timeout, line, idle = self.env, self.env.timeout, self.lines[kind], self.idle
        for _ in range(count):
            yield timeout(gap())
            job = Job(env.now, kind)
            if idle:
                idle.pop().succeed(job)
            else:
                line.append(job)
                timeout(self.patience(), job).callbacks.append(self.gives_up)

    def gives_up(self, event: simpy.Event) -> None:
        job = event.value
        if job.waiting:
            job.waiting = False
            self.there += self.env.now - job.came
            self.waits[job.kind].append(self.env.now - job.came)

    def next_job(self) -> Job | None:
        for line in self.lines:
            while line:
                job = line.popleft()
                if job.waiting:
                    return job
        return None

    def server(self) -> Steps:
        env, waits = self.env, self.waits
        while True:
            job = self.next_job() or (yield from self.rests())
            job.waiting = False
            waits[job.kind].append(env.now - job.came)
            takes = self.service()
            self.worked += takes
            yield from self.works(takes)
            self.there += env.now - job.came

    def works(self, left: float) -> Steps:
        """Until it is done, repairs included."""
        env = self.env
        while True:
            began = env.now
            try:
                yield env.timeout(left)
                return
            except simpy.Interrupt:
                left -= env.now - began
                yield from self.is_mended()

    def rests(self) -> Steps:
        """Until there is a job for it, which it returns."""
        while True:
            called = self.env.event()
            self.idle.append(called)
            try:
                return (yield called)
            except simpy.Interrupt:
                self.idle.remove(called)
                yield from self.is_mended()
            if job := self.next_job():
                return job

    def is_mended(self) -> Steps:
        yield self.env.timeout(self.repair())
        self.will_break(self.env.active_process)

    def will_break(self, server: simpy.Process) -> None:
        self.env.timeout(self.up()).callbacks.append(lambda _: server.interrupt())


def breaking(model: Model, jobs: int, rng: np.random.Generator) -> Found:
    """Until the last job has come; those that are still there do not count."""
    yard = Yard(model, rng)
    arrivals = [
        yard.env.process(yard.arrivals(draws(rng, 1 / rate), count, kind))
        for kind, (rate, count) in enumerate(zip(model.rates, model.shares(jobs), strict=True))
    ]
    for _ in range(model.servers):
        yard.will_break(yard.env.process(yard.server()))
    yard.env.run(until=yard.env.all_of(arrivals))
    return found(model, yard.waits, yard.there, yard.worked, yard.env.now)
