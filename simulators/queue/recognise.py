"""Which queue of the textbooks a scenario is, if it is one."""

from __future__ import annotations

from math import exp, fsum

import msgspec

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
    first, second, third = _moments(distribution)
    return Moments(first / speed, second / speed**2, third / speed**3)


def _moments(distribution: Distribution) -> tuple[float, float, float]:
    match distribution:
        case Constant(value=value):
            return value, value**2, value**3
        case Exponential(mean=mean):
            return mean, 2 * mean**2, 6 * mean**3
        case Erlang(phases=k, mean=mean):
            return mean, mean**2 * (k + 1) / k, mean**3 * (k + 1) * (k + 2) / k**2
        case Hyperexponential(means=means, probabilities=probabilities):
            parts = [(mean, 2 * mean**2, 6 * mean**3) for mean in means]
            return _mixed(probabilities, parts)
        case Lognormal(mean=mean, scv=scv):
            return mean, mean**2 * (1 + scv), mean**3 * (1 + scv) ** 3
        case Uniform(low=low, high=high):
            mean, half = (low + high) / 2, (high - low) / 2
            return mean, mean**2 + half**2 / 3, mean**3 + mean * half**2
        case Empirical(values=values, weights=weights):
            weights = weights or [1.0] * len(values)
            shares = [weight / fsum(weights) for weight in weights]
            return _mixed(shares, [(value, value**2, value**3) for value in values])


def _mixed(shares: list[float], parts: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    first, second, third = (
        fsum(share * part[power] for share, part in zip(shares, parts, strict=True)) for power in range(3)
    )
    return first, second, third


def recognised(scenario: Scenario) -> Known | None:
    """None for a queue that nobody has solved, or that is not settled: one whose rate changes. Raises Misuse
    for one that grows for ever."""
    jobs = scenario.jobs
    if jobs is None or not _steady(scenario) or not _alike(list(scenario.fleets.values())):
        return None
    classes = list(jobs.classes.values())
    if not all(_plain(each, scenario) for each in classes) or len({each.priority for each in classes}) > 1:
        return None
    speed = next(iter(scenario.fleets.values())).speed
    servers = slots_of(scenario)
    weight = fsum(each.weight for each in classes)
    service = Moments(
        *_mixed([each.weight / weight for each in classes], [_moments(each.service) for each in classes])
    )
    service = Moments(service.mean / speed, service.second / speed**2, (service.third or 0.0) / speed**3)
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
    return not scenario.faults and len(load) == 1 and load[0].load == load[0].load_after == 1.0


def _alike(fleets: list[Fleet]) -> bool:
    """For whoever gives a job away."""
    traits = {(fleet.speed, fleet.failure_probability, fleet.environment) for fleet in fleets}
    return len(traits) == 1 and all(fleet.failure_probability == 0 for fleet in fleets)


def _plain(each: JobClass, scenario: Scenario) -> bool:
    """Every robot can do it, and it waits and is done for as long as it takes."""
    fleets = scenario.fleets.values()
    able = all(
        set(each.required_capabilities) <= set(fleet.capabilities)
        and each.environment in (None, fleet.environment)
        for fleet in fleets
    )
    return able and each.timeout is None and each.patience is None


def check(scenario: Scenario) -> None:
    """What cannot be played in virtual time. Raises Misuse."""
    if scenario.jobs is None:
        raise Misuse(f"the scenario {scenario.name} has no jobs: there is no queue to look at")
    if not scenario.fleets:
        raise Misuse(f"the scenario {scenario.name} has no fleets: nobody would do the jobs")
    if scenario.faults:
        raise Misuse("faults are not played in virtual time yet: leave them out, or use fleetcast load")
    for name, each in scenario.jobs.classes.items():
        if not any(
            set(each.required_capabilities) <= set(fleet.capabilities)
            and each.environment in (None, fleet.environment)
            for fleet in scenario.fleets.values()
        ):
            raise Misuse(f"jobs.classes.{name}: no robot of this scenario can do such a job")
