"""Replications of a scenario, and what they say together, beside what theory says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from fleet.errors import Misuse
from simulators.queue import statistics
from simulators.queue.history import History
from simulators.queue.play import play
from simulators.queue.recognise import Known, check, recognised, slots_of
from simulators.queue.theory import Unstable
from simulators.scenario import Scenario

LEAST_WAITS = 20  # before it can be told when a queue has settled
LITTLE = 0.05  # how far L may be from X W before something is said


class Metric(msgspec.Struct, frozen=True):
    """`low` and `high`: of the interval of 95 %. `z`: how many standard errors the estimate is from
    `theory`; None where theory has no figure, or only an approximate one."""

    estimate: float
    low: float
    high: float
    theory: float | None = None
    z: float | None = None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """`jobs` came in all replications together, the warm-up included. `model`: the queue of the textbooks
    that this is, "" if it is none. `warnings` are for people."""

    name: str
    seed: int
    replications: int
    robots: int
    jobs: int
    lasts_s: float
    warm_up_s: float
    model: str
    metrics: dict[str, Metric]
    warnings: list[str]


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """`values`: the metrics of each replication, in their order; the same number is of the same jobs,
    whatever else a scenario changes."""

    warm_up_s: float
    values: list[dict[str, float]]
    warnings: list[str]


def run(
    scenario: Scenario,
    folder: Path,
    replications: int = 10,
    warm_up_s: float | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Findings:
    """`folder` is that of the scenario. Without `warm_up_s` what comes before the queue has settled is found
    and left out. `tell` hears how many replications are done. Raises Misuse for what cannot be played."""
    check(scenario)
    if replications < 2:
        raise Misuse("it takes two replications at least: from one nobody can tell how sure a figure is")
    if warm_up_s is not None and not 0 <= warm_up_s < scenario.lasts_s:
        raise Misuse(f"the warm-up must end before the scenario does, at {scenario.lasts_s:g} s")
    warnings: list[str] = []
    known = _known(scenario, warnings)
    histories = []
    for replication in range(replications):
        histories.append(play(scenario, folder, replication))
        tell(replication + 1)
    if warm_up_s is None:
        warm_up_s = _warm_up(histories, warnings)
    slots = slots_of(scenario)
    samples = [history.window(warm_up_s).metrics(slots) for history in histories]
    _check_little(samples, warnings)
    return Findings(
        name=scenario.name,
        seed=scenario.seed,
        replications=replications,
        robots=scenario.robots,
        jobs=sum(map(len, histories)),
        lasts_s=scenario.lasts_s,
        warm_up_s=warm_up_s,
        model=known.model if known else "",
        metrics=_metrics(samples, known),
        warnings=warnings,
    )


def samples(
    scenario: Scenario,
    folder: Path,
    replications: int = 10,
    warm_up_s: float | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Samples:
    """What `run` makes its intervals of, for who compares scenarios pair by pair."""
    check(scenario)
    warnings: list[str] = []
    _known(scenario, warnings)
    histories = []
    for replication in range(replications):
        histories.append(play(scenario, folder, replication))
        tell(replication + 1)
    from_s = _warm_up(histories, warnings) if warm_up_s is None else warm_up_s
    slots = slots_of(scenario)
    values = [history.window(from_s).metrics(slots) for history in histories]
    _check_little(values, warnings)
    return Samples(warm_up_s=from_s, values=values, warnings=warnings)


def _known(scenario: Scenario, warnings: list[str]) -> Known | None:
    """A queue that grows may be looked at, too: for as long as the scenario lasts."""
    try:
        return recognised(scenario)
    except Unstable as overloaded:
        warnings.append(f"{overloaded.detail}; these figures are those of the first {scenario.lasts_s:g} s")
        return None


def _warm_up(histories: Sequence[History], warnings: list[str]) -> float:
    """By the waits of each replication; the longest counts for all."""
    longest_s = 0.0
    for history in histories:
        came_s, waits = history.waits_s()
        if len(waits) < LEAST_WAITS:
            warnings.append(f"only {len(waits)} jobs were begun in a replication: let it last longer")
            return 0.0
        cut = statistics.warm_up(waits)
        if cut >= len(waits) // 2 - statistics.MSER_BATCH:
            warnings.append("the queue had not settled when the scenario was half over: let it last longer")
        longest_s = max(longest_s, float(came_s[cut]) if cut else 0.0)
    return min(longest_s, max(history.lasts_s for history in histories) / 2)


def _check_little(samples: Sequence[dict[str, float]], warnings: list[str]) -> None:
    """L = X W, of those who came and left in the window; those that straddle it make the difference."""
    inside = [each for each in samples if "W" in each and each["L"] > 0]
    if not inside:
        return
    jobs = float(np.mean([each["L"] for each in inside]))
    product = float(np.mean([each["throughput"] * each["W"] for each in inside]))
    if abs(jobs - product) > LITTLE * jobs:
        warnings.append(
            f"by Little's law {jobs:.4g} jobs would be {product:.4g}: many were there at the beginning or "
            "the end, or left without being served; let it last longer"
        )


def _metrics(samples: Sequence[dict[str, float]], known: Known | None) -> dict[str, Metric]:
    """Of what every replication has a figure for."""
    names = [name for name in samples[0] if all(name in each for each in samples)]
    found = {}
    for name in names:
        interval = statistics.mean_of([each[name] for each in samples])
        truth = known.figures.get(name) if known else None
        z = interval.z(truth) if known and truth is not None and known.exact else None
        found[name] = Metric(interval.estimate, interval.low, interval.high, truth, z)
    return found
