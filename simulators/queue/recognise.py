"""Which queue of the textbooks a scenario is, if it is one."""

from __future__ import annotations

from math import exp, fsum

import msgspec

from fleet.dispatch import fits
from fleet.errors import Misuse
from simulators.distributions import (
    Constant,
    Distribution,
    Empirical,
    Erlang,
    Exponential,
    Hyperexponential,
    Lognormal,
    Uniform,
)
from simulators.queue import theory
from simulators.queue.theory import Moments, Steady
from simulators.scenario import ConstantArrivals, Fleet, JobClass, PoissonArrivals, Scenario


class Known(msgspec.Struct, frozen=True):
    """`model` in Kendall's notation; `exact` False for an approximation. `figures` are by the names of
    metrics."""

    model: str
    figures: dict[str, float]
    exact: bool = True


def moments_of(distribution: Distribution, speed: float = 1.0) -> Moments:
    """Of the time that a robot of that `speed` needs."""
    found = _moments(distribution)
    return Moments(found.mean / speed, found.second / speed**2, found.third / speed**3)


def _moments(distribution: Distribution) -> Moments:
    match distribution:
        case Constant(value=value):
            return _constant(value)
        case Exponential(mean=mean):
            return _exponential(mean)
        case Erlang(phases=k, mean=mean):
            return Moments(mean, mean**2 * (k + 1) / k, mean**3 * (k + 1) * (k + 2) / k**2)
        case Hyperexponential(means=means, probabilities=probabilities):
            return _mixed(probabilities, list(map(_exponential, means)))
        case Lognormal(mean=mean, scv=scv):
            return Moments(mean, mean**2 * (1 + scv), mean**3 * (1 + scv) ** 3)
        case Uniform(low=low, high=high):
            mean, half = (low + high) / 2, (high - low) / 2
            return Moments(mean, mean**2 + half**2 / 3, mean**3 + mean * half**2)
        case Empirical(values=values, weights=weights):
            weights = weights or [1.0] * len(values)
            shares = [weight / fsum(weights) for weight in weights]
            return _mixed(shares, list(map(_constant, values)))


def _constant(value: float) -> Moments:
    return Moments(value, value**2, value**3)


def _exponential(mean: float) -> Moments:
    return Moments(mean, 2 * mean**2, 6 * mean**3)


def _mixed(shares: list[float], parts: list[Moments]) -> Moments:
    def mean_of(power: str) -> float:
        return fsum(share * getattr(part, power) for share, part in zip(shares, parts, strict=True))

    return Moments(mean_of("mean"), mean_of("second"), mean_of("third"))


def recognised(scenario: Scenario) -> Known | None:
    """None for a queue that nobody has solved, or that is not settled: one whose rate changes. Raises Misuse
    for one that grows for ever."""
    jobs = scenario.jobs
    if (
        jobs is None
        or scenario.virtual_only
        or not _steady(scenario)
        or not _alike(list(scenario.fleets.values()))
    ):
        return None
    classes = list(jobs.classes.values())
    if not all(_plain(each, scenario) for each in classes) or len({each.priority for each in classes}) > 1:
        return None
    speed = next(iter(scenario.fleets.values())).speed
    servers = slots_of(scenario)
    weight = fsum(each.weight for each in classes)
    service = _mixed(
        [each.weight / weight for each in classes], [moments_of(each.service, speed) for each in classes]
    )
    if service.mean == 0:
        return None
    memoryless = all(isinstance(each.service, Exponential) for each in classes) and (
        len({each.service.mean_s for each in classes}) == 1
    )
    match jobs.arrivals:
        case PoissonArrivals(rate=rate) if memoryless:
            return _of(
                f"M/M/{servers}",
                theory.mmc(rate, 1 / service.mean, servers),
                _wait_quantiles(rate, service.mean, servers),
            )
        case PoissonArrivals(rate=rate) if servers == 1:
            return _of("M/G/1", theory.mg1(rate, service))
        case ConstantArrivals(rate=rate) if memoryless and servers == 1:
            return _of("D/M/1", theory.gm1(lambda s: exp(-s / rate), rate, 1 / service.mean))
        case PoissonArrivals(rate=rate):
            wq = theory.allen_cunneen(rate, 1.0, service, servers)
            figures = {"Wq": wq, "W": wq + service.mean, "Lq": rate * wq, "L": rate * (wq + service.mean)}
            return Known(f"M/G/{servers}, by Allen and Cunneen", figures, exact=False)
    return None


def _of(model: str, found: Steady, more: dict[str, float] | None = None) -> Known:
    names = ("utilisation", "L", "Lq", "W", "Wq", "throughput", "P_wait")
    figures = {name: value for name in names if (value := getattr(found, name)) is not None}
    return Known(model, figures | (more or {}))


def _wait_quantiles(rate: float, mean: float, servers: int) -> dict[str, float]:
    return {
        f"Wq_p{percent}": theory.mmc_wait_quantile(rate, 1 / mean, servers, percent / 100)
        for percent in (50, 95, 99)
    }


def slots_of(scenario: Scenario) -> int:
    """How many jobs its robots can do at once."""
    return sum(fleet.count * fleet.max_concurrent_jobs for fleet in scenario.fleets.values())


def _steady(scenario: Scenario) -> bool:
    load = scenario.load
    return len(load) == 1 and load[0].load == load[0].load_after == 1.0


def _alike(fleets: list[Fleet]) -> bool:
    """For whoever gives a job away."""
    traits = {(fleet.speed, fleet.failure_probability, fleet.environment) for fleet in fleets}
    return len(traits) == 1 and all(fleet.failure_probability == 0 for fleet in fleets)


def _plain(each: JobClass, scenario: Scenario) -> bool:
    """Every robot can do it, and it waits and is done for as long as it takes."""
    fleets = scenario.fleets.values()
    return all(_can(fleet, each) for fleet in fleets) and each.timeout is None and each.patience is None


def _can(fleet: Fleet, each: JobClass) -> bool:
    """As the dispatcher has it."""
    needs = (each.environment, frozenset(each.required_capabilities))
    return fits(needs, (fleet.environment, frozenset(fleet.capabilities)))


def check(scenario: Scenario) -> None:
    """What cannot be played in virtual time. Raises Misuse."""
    if scenario.jobs is None:
        raise Misuse(f"the scenario {scenario.name} has no jobs: there is no queue to look at")
    if not scenario.fleets:
        raise Misuse(f"the scenario {scenario.name} has no fleets: nobody would do the jobs")
    if scenario.faults:
        raise Misuse("faults are not played in virtual time yet: leave them out, or use fleetcast load")
    if scenario.virtual_only:
        raise Misuse(f"{', '.join(scenario.virtual_only)}: this is not played yet")
    for name, each in scenario.jobs.classes.items():
        if not any(_can(fleet, each) for fleet in scenario.fleets.values()):
            raise Misuse(f"jobs.classes.{name}: no robot of this scenario can do such a job")
