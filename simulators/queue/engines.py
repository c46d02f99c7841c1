"""Who plays a scenario: compiled, in plain Python, or the code of production."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from fleet.errors import Misuse
from simulators.keyed import Ints
from simulators.queue import fast, plain, production
from simulators.queue.kernels.tally import Tally
from simulators.scenario import Scenario

Engine = Literal["auto", "fast", "plain", "production"]


class Play(Protocol):
    def __call__(
        self, scenario: Scenario, folder: Path, seed: int, warm_up_ns: int = 0, told: Ints = ...
    ) -> Tally: ...


ENGINES: dict[str, tuple[Play, Callable[[Scenario], list[str]]]] = {
    "fast": (fast.play, fast.undone),
    "production": (production.play, production.undone),
    "plain": (plain.play, fast.undone),
}


def engine_for(scenario: Scenario, asked: Engine = "auto") -> Play:
    """The fastest that plays all of it, or the one that is asked for. Raises Misuse if it does not."""
    undone = {}
    for name in ENGINES if asked == "auto" else [asked]:
        play, undone_by = ENGINES[name]
        undone[name] = undone_by(scenario)
        if not undone[name]:
            return play
    told = "; ".join(f"{name} does not play {', '.join(what)}" for name, what in undone.items())
    raise Misuse(f"no engine plays all of this scenario: {told}")


def seed_of(seed: int, replication: int) -> int:
    """Replications are independent of each other, and each is the same whenever it is played; 0 has the jobs
    that `fleetcast load` submits."""
    if replication == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(replication,)).generate_state(1, np.uint64)[0] >> 1)
