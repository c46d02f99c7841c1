"""Replications of a scenario, and what they say together, beside what theory says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil, inf
from pathlib import Path

import msgspec
import numpy as np

from fleet.errors import Misuse
from simulators.job_draws import most_per_s
from simulators.keyed import NANO
from simulators.queue import fast, statistics, theory
from simulators.queue.arrays import slots_of
from simulators.queue.engines import Engine, engine_for, seed_of
from simulators.queue.figures import SHARES, Figures, Replication
from simulators.queue.recognise import Known, Line, check, recognised
from simulators.queue.settling import settled_ns
from simulators.queue.statistics import Interval
from simulators.queue.theory import Unstable
from simulators.scenario import Scenario

LITTLE = 0.05  # how far L may be from X W before something is said
PRECISE = ("L", "W")  # the metrics that a precision is asked of
RARE = 10  # jobs
ROUNDING = 1e-12
LEAST_REPLICATIONS = 10  # for a precision: with fewer an interval may be narrow by chance
MOST_JOBS = 1e10  # of a replication: a quarter of an hour
MOST_JOBS_SLOWLY = 1e8  # by production, or in plain Python: some hours
MOST_PLACES = 10_000_000
LONGEST_S = 70 * 31_536_000.0  # in nanoseconds, that is what there are numbers for
MOST_REPLICATIONS = 1_000  # that are added for the sake of a precision


class Metric(msgspec.Struct, frozen=True):
    """`low` and `high`: of the interval of 95 %. `z`: how many standard errors the estimate is from
    `theory`; None where theory has no figure, or only an approximate one."""

    estimate: float
    low: float
    high: float
    theory: float | None = None
    z: float | None = None


class Robots(msgspec.Struct, frozen=True):
    """Of each robot, one after the other as the fleets are; who does several jobs at once is several. On
    average over the replications, after a warm-up that was given, else from the beginning."""

    utilisation: list[float]
    jobs: list[float]


class Curves(msgspec.Struct, frozen=True):
    """On average over the replications: `waits` and `stays` are the times in seconds that these `shares` of
    the jobs do not exceed; `in_line`, how many jobs waited in one hundredth of the time after the other, from
    `begins_s` on. The same of theory, where it has that: of M/M/c."""

    shares: list[float]
    waits: list[float]
    stays: list[float]
    in_line: list[float]
    begins_s: float = 0.0
    waits_theory: list[float] = []
    stays_theory: list[float] = []


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
    classes: dict[str, dict[str, Metric]]
    of_robots: Robots
    curves: Curves
    warnings: list[str]


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """`values`: the metrics of each replication, in their order; the same number is of the same jobs,
    whatever else a scenario changes."""

    warm_up_s: float
    values: list[Figures]
    warnings: list[str]


def run(
    scenario: Scenario,
    folder: Path,
    replications: int = 10,
    warm_up_s: float | None = None,
    tell: Callable[[int], None] = lambda done: None,
    *,
    precision: float | None = None,
    engine: Engine = "auto",
) -> Findings:
    """`folder` is that of the scenario. Without `warm_up_s` what comes before the queue has settled is found
    and left out. One replication is taken apart in time: by overlapping batch means, and without percentiles
    and classes. With a `precision`, replications are added until the intervals of L and W are no wider, to
    either side, than this share of the estimate. `tell` hears how many replications are done. Raises Misuse
    for what cannot be played."""
    if replications < 1 or (replications == 1 and precision is not None):
        raise Misuse("it takes one replication at least, and two for a precision")
    lab = _Lab(scenario, folder, warm_up_s, engine)
    known = lab.known()
    lab.play(replications if precision is None else max(replications, LEAST_REPLICATIONS), tell)
    if precision is not None:
        lab.play_until(precision, tell)
    return lab.findings(known)


def samples(
    scenario: Scenario,
    folder: Path,
    replications: int = 10,
    warm_up_s: float | None = None,
    tell: Callable[[int], None] = lambda done: None,
    *,
    engine: Engine = "auto",
) -> Samples:
    """What `run` makes its intervals of, for who compares scenarios pair by pair."""
    lab = _Lab(scenario, folder, warm_up_s, engine)
    lab.known()
    lab.play(replications, tell)
    first = lab.first()
    values = lab.values(first)
    return Samples(warm_up_s=lab.begins_s(first), values=values, warnings=lab.warnings)


class _Lab:
    def __init__(self, scenario: Scenario, folder: Path, warm_up_s: float | None, engine: Engine) -> None:
        check(scenario)
        if warm_up_s is not None and not 0 <= warm_up_s < scenario.lasts_s:
            raise Misuse(f"the warm-up must end before the scenario does, at {scenario.lasts_s:g} s")
        self._scenario = scenario
        self._folder = folder
        self._warm_up_s = warm_up_s
        self._play = engine_for(scenario, engine)
        _check_length(scenario, MOST_JOBS if self._play is fast.play else MOST_JOBS_SLOWLY)
        self._slots = slots_of(scenario)
        self._played: list[Replication] = []
        self.warnings: list[str] = []

    def known(self) -> Known | None:
        """A queue that grows may be looked at, too: for as long as the scenario lasts."""
        try:
            return recognised(self._scenario)
        except Unstable as overloaded:
            lasts_s = self._scenario.lasts_s
            self.warnings.append(f"{overloaded.detail}; these figures are those of the first {lasts_s:g} s")
            return None

    def play(self, replications: int, tell: Callable[[int], None]) -> None:
        warm_up_ns = round((self._warm_up_s or 0.0) * NANO)
        for _ in range(replications):
            seed = seed_of(self._scenario.seed, len(self._played))
            self._played.append(Replication(self._play(self._scenario, self._folder, seed, warm_up_ns)))
            tell(len(self._played))

    def play_until(self, precision: float, tell: Callable[[int], None]) -> None:
        """Raises Misuse for a precision that is none. One that is out of reach is given up, with a
        warning."""
        if not 0 < precision < 1:
            raise Misuse(f"a precision is a share of the estimate, such as 0.02, not {precision:g}")
        while True:
            wanted = self._wanted(precision)
            if wanted <= len(self._played):
                return
            if wanted > MOST_REPLICATIONS:
                self.warnings.append(
                    f"a precision of {precision:g} would take some {wanted:,.0f} replications of this "
                    f"length, and {MOST_REPLICATIONS:,} are the most: let it last longer"
                )
                return
            self.play(min(ceil(wanted) - len(self._played), len(self._played)), tell)

    def _wanted(self, precision: float) -> float:
        """Replications: the width of an interval falls with the root of their number."""
        first, most = self._first()[0], 0.0
        values = [each.figures(first, self._slots) for each in self._played]
        for name in PRECISE:
            if all(name in each for each in values):
                found = statistics.mean_of([each[name] for each in values])
                width = (found.high - found.low) / 2
                part = width / abs(found.estimate) if found.estimate else inf if width else 0.0
                most = max(most, (part / precision) ** 2 * len(values))
        return len(values) if most <= len(values) else most

    def _first(self) -> tuple[int, list[str]]:
        """The segment from which on all replications count, and what is to be said about that."""
        if self._warm_up_s is not None:
            return 1, []
        settled = settled_ns(self._played)
        if settled is None:
            return 1, ["only few jobs came in a replication: let it last longer"]
        half_ns = self._scenario.lasts_s * NANO / 2
        if settled <= half_ns:
            return self._played[0].segment_after(settled), []
        told = "the queue had not settled when the scenario was half over: let it last longer"
        return self._played[0].segment_after(half_ns), [told]

    def first(self) -> int:
        """The segment from which on all replications count. Warns of what speaks against it."""
        first, told = self._first()
        self.warnings += told
        return first

    def begins_s(self, first: int) -> float:
        """What is left out."""
        return self._warm_up_s or self._played[0].begins_s(first)

    def values(self, first: int) -> list[Figures]:
        """Of each replication."""
        impossible = _impossible(self._scenario)
        values = [_without(impossible, each.figures(first, self._slots)) for each in self._played]
        self._check_little(first)
        if len(values) > 1 and all(each == values[0] for each in values):
            self.warnings.append("all replications are alike: nothing in this scenario is random")
        return values

    def findings(self, known: Known | None) -> Findings:
        scenario, first, alone = self._scenario, self.first(), len(self._played) == 1
        values = self.values(first)
        jobs = sum(each.jobs for each in self._played)
        judge = partial(_judged, exact=known is None or known.exact, jobs=jobs)
        truth = known.figures if known else {}
        return Findings(
            name=scenario.name,
            seed=scenario.seed,
            replications=len(self._played),
            robots=scenario.robots,
            jobs=jobs,
            lasts_s=scenario.lasts_s,
            warm_up_s=self.begins_s(first),
            model=known.model if known else "",
            metrics=judge(self._through_time(first), truth) if alone else judge(_means(values), truth),
            classes={} if alone else self._classes(first, known.classes if known else {}, judge),
            of_robots=self._of_robots(),
            curves=self._curves(first, known.line if known else None),
            warnings=self.warnings,
        )

    def _through_time(self, first: int) -> dict[str, Interval]:
        """Of one replication."""
        impossible = _impossible(self._scenario)
        series = self._played[0].through_time(first, self._slots)
        return {
            name: statistics.steady_ratio(parts, wholes, batches=10)
            for name, (parts, wholes) in series.items()
            if name not in impossible and wholes.any()
        }

    def _classes(
        self,
        first: int,
        known: dict[str, Figures],
        judge: Callable[[dict[str, Interval], Figures], dict[str, Metric]],
    ) -> dict[str, dict[str, Metric]]:
        assert self._scenario.jobs is not None
        impossible, names = _impossible(self._scenario), list(self._scenario.jobs.classes)
        played = [each.of_classes(first, names) for each in self._played]
        return {
            name: judge(_means([_without(impossible, each[name]) for each in played]), known.get(name, {}))
            for name in names
        }

    def _of_robots(self) -> Robots:
        return Robots(
            np.mean([each.worked for each in self._played], axis=0).tolist(),
            np.mean([each.done for each in self._played], axis=0).tolist(),
        )

    def _curves(self, first: int, line: Line | None) -> Curves:
        quantiles = np.mean([each.quantiles_s(first) for each in self._played], axis=0)
        there = [[] if np.isnan(each).any() else each.tolist() for each in quantiles]
        in_line = np.mean([each.in_line() for each in self._played], axis=0)
        return Curves(
            shares=SHARES.tolist(),
            waits=there[0],
            stays=there[1],
            in_line=in_line.tolist(),
            begins_s=self._warm_up_s or 0.0,
            waits_theory=_at_shares(theory.mmc_wait_quantile, line),
            stays_theory=_at_shares(theory.mmc_stay_quantile, line),
        )

    def _check_little(self, first: int) -> None:
        """L = X W, of those that left in the window; those that straddle it make the difference."""
        jobs, product = np.mean([each.little(first) for each in self._played], axis=0)
        if abs(jobs - product) > LITTLE * jobs:
            self.warnings.append(
                f"by Little's law {jobs:.4g} jobs would be {product:.4g}: many were there at the beginning "
                "or the end; let it last longer"
            )


def _at_shares(quantile: Callable[[float, float, int, float], float], line: Line | None) -> list[float]:
    if line is None:
        return []
    return [quantile(line.rate, line.service_rate, line.servers, share) for share in SHARES.tolist()]


def _check_length(scenario: Scenario, most: float) -> None:
    """Nobody waits for what takes days."""
    if scenario.lasts_s > LONGEST_S:
        raise Misuse(f"a scenario lasts {LONGEST_S / 31_536_000:.0f} years at most")
    if slots_of(scenario) > MOST_PLACES:
        raise Misuse(f"the robots can do more than {MOST_PLACES:,} jobs at once: take fewer")
    happens = most_events(scenario)
    if happens > most:
        raise Misuse(
            f"some {happens:.1g} jobs and breakdowns would come, and {most:.0e} are the most: let it end "
            "earlier"
        )


def most_events(scenario: Scenario) -> float:
    """Jobs and breakdowns, at their fastest."""
    assert scenario.jobs is not None
    load = max((each.load for each in scenario.load), default=1.0)
    breaks = sum(
        fleet.count / (fleet.breakdowns.up.mean_s + fleet.breakdowns.repair.mean_s)
        for fleet in scenario.fleets.values()
        if fleet.breakdowns is not None
    )
    return (load * (most_per_s(scenario.jobs) or 0.0) + breaks) * scenario.lasts_s


def _impossible(scenario: Scenario) -> set[str]:
    """Metrics of what cannot happen in it."""
    assert scenario.jobs is not None
    classes, fleets = scenario.jobs.classes.values(), scenario.fleets.values()
    possible = {
        "P_block": scenario.queue.capacity is not None,
        "P_balk": scenario.queue.balking is not None,
        "P_abandon": any(each.patience is not None for each in classes),
        "P_dead_letter": any(fleet.failure_probability > 0 for fleet in fleets)
        or any(each.timeout is not None for each in classes),
        "availability": any(fleet.breakdowns is not None for fleet in fleets),
    }
    return {name for name, there in possible.items() if not there}


def _without(names: set[str], figures: Figures) -> Figures:
    return {name: value for name, value in figures.items() if name not in names}


def _means(samples: Sequence[Figures]) -> dict[str, Interval]:
    """Over the replications, of what each of them has a figure for."""
    names = [name for name in samples[0] if all(name in each for each in samples)]
    return {name: statistics.mean_of([each[name] for each in samples]) for name in names}


def _judged(
    found: dict[str, Interval], theory: dict[str, float], exact: bool, jobs: int
) -> dict[str, Metric]:
    """Beside theory. A share of the `jobs` that is expected of a few of them only is not judged: normally
    nothing is seen of it. Neither is what differs by no more than rounding."""
    metrics = {}
    for name, interval in found.items():
        truth = theory.get(name)
        rare = truth is not None and name.startswith("P_") and 0 < truth * jobs < RARE
        alike = interval.error <= ROUNDING * abs(interval.estimate)
        z = interval.z(truth) if exact and truth is not None and not rare and not alike else None
        metrics[name] = Metric(interval.estimate, interval.low, interval.high, truth, z)
    return metrics
