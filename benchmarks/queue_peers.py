"""Ciw, SimPy, LINE's LDES and cimba play a queue, each at its best; one process per measurement.

    python benchmarks/queue_peers.py PEER MODEL JOBS SEED

prints a line of JSON: the peer, its version, what it found, and the seconds of processor time that the run
took. Two of them play twice: as their own guides write a queue (`simpy_guide`, `cimba_guide`), and as one
would who wants them fast (`simpy`, `cimba`). All keep every wait for its percentiles, but for `cimba`, which
counts them by their length, and `ldes`, which knows none.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

from queue_models import MODELS, STEADY, report


class Peer(NamedTuple):
    module: str
    distribution: str
    models: tuple[str, ...]


PEERS = {
    "ciw": Peer("queue_ciw", "ciw", STEADY),
    "simpy": Peer("queue_simpy", "simpy", tuple(MODELS)),
    "simpy_guide": Peer("queue_simpy_guide", "simpy", tuple(MODELS)),
    "ldes": Peer("queue_ldes", "line-solver", STEADY),
    "cimba": Peer("queue_cimba", "cimba", tuple(MODELS)),
    "cimba_guide": Peer("queue_cimba_guide", "cimba", STEADY),
}


def main() -> None:
    name, model = sys.argv[1:3]
    peer = PEERS[name]
    if model not in peer.models:
        sys.exit(f"{name} does not play {model}")
    report(name, version(peer.distribution), import_module(peer.module).run)


if __name__ == "__main__":
    main()
