"""fleetcast plays a queue of the benchmark of simulators.

    python benchmarks/queue_fleetcast.py MODEL JOBS SEED

prints the line of JSON that queue_peers.py prints for the others.
"""

from __future__ import annotations

from importlib.metadata import version

from queue_models import Found, report


def run(name: str, jobs: int, seed: int) -> Found:
    raise NotImplementedError("the engine that plays it is not there yet")


if __name__ == "__main__":
    report("fleetcast", version("fleetcast"), run)
