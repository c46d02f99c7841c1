"""Ciw: a network of one node, its records of individuals for the waits, its own figure of utilisation.

Python's garbage collector is off meanwhile: Ciw keeps every individual, and walking through them again and
again costs it a tenth of its speed.
"""

from __future__ import annotations

import gc

import ciw
from queue_models import MEAN_SERVICE, MODELS, Found, Model, found


def run(name: str, jobs: int, seed: int) -> Found:
    model = MODELS[name]
    ciw.seed(seed)
    simulation = ciw.Simulation(network(model))
    gc.disable()
    simulation.simulate_until_max_customers(jobs)
    what = read(model, simulation)
    gc.enable()
    return what


def network(model: Model) -> ciw.network.Network:
    classes = [f"class {number}" for number in range(len(model.rates))]
    return ciw.create_network(
        arrival_distributions={
            each: [ciw.dists.Exponential(rate)] for each, rate in zip(classes, model.rates, strict=True)
        },
        service_distributions={each: [ciw.dists.Exponential(1 / MEAN_SERVICE)] for each in classes},
        priority_classes={each: number for number, each in enumerate(classes)},
        number_of_servers=[model.servers],
    )


def read(model: Model, simulation: ciw.Simulation) -> Found:
    waits: dict[str, list[float]] = {f"class {number}": [] for number in range(len(model.rates))}
    there = 0.0
    for record in simulation.get_all_records():
        waits[record.customer_class].append(record.waiting_time)
        there += record.exit_date - record.arrival_date
    lasted = simulation.current_time
    worked = simulation.transitive_nodes[0].server_utilisation * model.servers * lasted
    return found(model, list(waits.values()), there, worked, lasted)
