"""LINE's LDES: a network of a source, a queue and a sink, and the averages that it gives of them.

It is the compiled engine that its wheel brings, which LINE starts as a process of its own. It knows neither
percentiles (for those LINE wants ldes.jar, which the wheel does not bring) nor, unless it is made to keep a
histogram of all states, which costs it a sixth of its speed, how many have to wait.

It does not play what breaks and loses patience: its breakdowns are of all servers of a station at once.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from queue_models import MEAN_SERVICE, MODELS, Found, Model

with contextlib.redirect_stdout(io.StringIO()):
    from line_solver import LDES, Exp, Network, OpenClass, Queue, SchedStrategy, Sink, Source


def run(name: str, jobs: int, seed: int) -> Found:
    model = MODELS[name]
    with contextlib.redirect_stdout(io.StringIO()):
        solver = LDES(network(model), samples=jobs, seed=seed, verbose="silent")
        solver.runAnalyzer()
    return read(model, solver)


def network(model: Model) -> Network:
    line = Network("queue")
    source = Source(line, "source")
    queue = Queue(line, "servers", SchedStrategy.HOL if len(model.rates) > 1 else SchedStrategy.FCFS)
    sink = Sink(line, "sink")
    queue.setNumberOfServers(model.servers)
    for number, rate in enumerate(model.rates):
        jobs = OpenClass(line, f"class {number}", number)
        source.setArrival(jobs, Exp(rate))
        queue.setService(jobs, Exp(1 / MEAN_SERVICE))
    line.link(Network.serialRouting(source, queue, sink))
    return line


def read(model: Model, solver: LDES) -> Found:
    """Row 1 is the queue; a column is a class."""
    times, shares = solver.getAvgRespT()[1], np.array(model.rates) / model.rate
    waits, throughput = times - MEAN_SERVICE, solver.getAvgTput()[1]
    return Found(
        float(waits @ shares),
        float(times @ shares),
        float(waits @ throughput),
        float(solver.getAvgUtil()[1].sum()),
        Wq_classes=tuple(waits.tolist()),
    )
