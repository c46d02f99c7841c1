"""SimPy as its guide writes a queue: a process for each job, which asks a Resource for a server.

Where servers break, each is a process, as in the guide's machine shop, which takes jobs from a PriorityStore;
a job that waits waits for its turn or the end of its patience, whichever comes first, as in its bank.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify
from itertools import count

import numpy as np
import simpy
from queue_models import MEAN_SERVICE, MODELS, Found, Model, found
from queue_simpy import Steps, draws


def run(name: str, jobs: int, seed: int) -> Found:
    model = MODELS[name]
    return (breaking if model.up else steady)(model, jobs, np.random.default_rng(seed))


def steady(model: Model, jobs: int, rng: np.random.Generator) -> Found:
    """Until the last job has left."""
    env, service = simpy.Environment(), draws(rng, MEAN_SERVICE)
    urgent = len(model.rates) > 1
    servers = (simpy.PriorityResource if urgent else simpy.Resource)(env, model.servers)
    waits: list[list[float]] = [[] for _ in model.rates]
    worked = 0.0

    def job(kind: int) -> Steps:
        nonlocal worked
        came = env.now
        with servers.request(kind) if urgent else servers.request() as turn:
            yield turn
            waits[kind].append(env.now - came)
            takes = service()
            worked += takes
            yield env.timeout(takes)

    def arrivals(gap: Callable[[], float], jobs: int, kind: int) -> Steps:
        for _ in range(jobs):
            yield env.timeout(gap())
            env.process(job(kind))

    for kind, (rate, share) in enumerate(zip(model.rates, model.shares(jobs), strict=True)):
        env.process(arrivals(draws(rng, 1 / rate), share, kind))
    env.run()
    return found(model, waits, sum(map(sum, waits)) + worked, worked, env.now)


def breaking(model: Model, jobs: int, rng: np.random.Generator) -> Found:
    """Until the last job has come; those that are still there do not count."""
    env, service, patience = simpy.Environment(), draws(rng, MEAN_SERVICE), draws(rng, model.patience)
    up, repair = draws(rng, model.up), draws(rng, model.repair)
    line = simpy.PriorityStore(env)
    waits: list[list[float]] = [[] for _ in model.rates]
    worked = there = 0.0
    numbers = count()

    def job(kind: int) -> Steps:
        nonlocal there
        came, turn, done = env.now, env.event(), env.event()
        place = (kind, next(numbers), turn, done)
        line.put(place)
        yield turn | env.timeout(patience())
        waits[kind].append(env.now - came)
        if turn.triggered:
            yield done
        else:
            line.items.remove(place)
            heapify(line.items)
        there += env.now - came

    def server() -> Steps:
        nonlocal worked
        while True:
            taken = line.get()
            try:
                _, _, turn, done = yield taken
            except simpy.Interrupt:
                taken.cancel()
                yield from mended()
                continue
            turn.succeed()
            left = service()
            worked += left
            while left:
                began = env.now
                try:
                    yield env.timeout(left)
                    left = 0.0
                except simpy.Interrupt:
                    left -= env.now - began
                    yield from mended()
            done.succeed()

    def mended() -> Steps:
        yield env.timeout(repair())
        env.process(breaks(env.active_process))

    def breaks(server: simpy.Process) -> Steps:
        yield env.timeout(up())
        server.interrupt()

    def arrivals(gap: Callable[[], float], jobs: int, kind: int) -> Steps:
        for _ in range(jobs):
            yield env.timeout(gap())
            env.process(job(kind))

    shares = enumerate(zip(model.rates, model.shares(jobs), strict=True))
    coming = [env.process(arrivals(draws(rng, 1 / rate), share, kind)) for kind, (rate, share) in shares]
    for _ in range(model.servers):
        env.process(breaks(env.process(server())))
    env.run(until=env.all_of(coming))
    return found(model, waits, there, worked, env.now)
