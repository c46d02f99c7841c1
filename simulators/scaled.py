"""The same scenario with more robots, in less time, or with more to do."""

from __future__ import annotations

from math import fsum
from typing import Any

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
from simulators.scenario import (
    MAX_ROBOTS,
    Arrivals,
    BatchArrivals,
    ClosedArrivals,
    ConstantArrivals,
    Jobs,
    MmppArrivals,
    PoissonArrivals,
    RenewalArrivals,
    Scenario,
    SinusoidArrivals,
    TraceArrivals,
)


def with_robots(scenario: Scenario, robots: int) -> Scenario:
    """All fleets in the same proportion, each with one robot at least; jobs arrive as before."""
    if not scenario.fleets:
        raise Misuse(f"the scenario {scenario.name} has no fleet to be made larger or smaller")
    if not len(scenario.fleets) <= robots <= MAX_ROBOTS:
        raise Misuse(
            f"the scenario {scenario.name} takes {len(scenario.fleets)} to {MAX_ROBOTS} robots, not {robots}"
        )
    before, left, counts = scenario.robots, robots, {}
    for number, (name, fleet) in enumerate(scenario.fleets.items(), 1):
        others = len(scenario.fleets) - number
        share = left if not others else round(left * fleet.count / before)
        counts[name] = min(max(1, share), left - others)
        left, before = left - counts[name], before - fleet.count
    fleets = {
        name: fleet.model_copy(update={"count": counts[name]}) for name, fleet in scenario.fleets.items()
    }
    return scenario.model_copy(update={"fleets": fleets})


def within(scenario: Scenario, seconds: float) -> Scenario:
    """Its stages and the times of its faults in the same proportion."""
    part = seconds / scenario.lasts_s
    stages = [stage.model_copy(update={"lasts": stage.lasts * part}) for stage in scenario.stages]
    faults = [fault.model_copy(update={"at": fault.at * part}) for fault in scenario.faults]
    duration = None if scenario.duration is None else seconds
    return scenario.model_copy(update={"stages": stages, "faults": faults, "duration": duration})


def offered_load(scenario: Scenario) -> float:
    """rho: the rate of the arrivals, where stages do not change it, times the mean service, over the places
    of all robots, each as many as its robot is fast. Raises Misuse where there is no such figure."""
    jobs = scenario.jobs
    if jobs is None:
        raise Misuse(f"the scenario {scenario.name} has no jobs, and so no load")
    places = fsum(fleet.count * fleet.max_concurrent_jobs * fleet.speed for fleet in scenario.fleets.values())
    if not places:
        raise Misuse(f"the scenario {scenario.name} has no robots, and so no load")
    return _rate(jobs.arrivals) * _mean_service_s(jobs) / places


def at_load(scenario: Scenario, load: float) -> Scenario:
    """Jobs arrive in the same pattern, as many times faster as makes that the offered load. Raises Misuse."""
    if not 0 < load < 1_000:
        raise Misuse(f"a load is above 0 and below 1000, not {load:g}")
    before = offered_load(scenario)
    if before == 0:
        raise Misuse(f"the jobs of the scenario {scenario.name} take no time: that is no load at any rate")
    assert scenario.jobs is not None
    arrivals = _faster(scenario.jobs.arrivals, load / before)
    return scenario.model_copy(update={"jobs": scenario.jobs.model_copy(update={"arrivals": arrivals})})


def _mean_service_s(jobs: Jobs) -> float:
    classes = jobs.classes.values()
    return fsum(each.weight * each.service.mean_s for each in classes) / fsum(each.weight for each in classes)


def _rate(arrivals: Arrivals) -> float:
    """Jobs a second, in the long run."""
    match arrivals:
        case ConstantArrivals(rate=rate) | PoissonArrivals(rate=rate) | SinusoidArrivals(rate=rate):
            return rate
        case BatchArrivals(rate=rate, smallest=smallest, largest=largest):
            return rate * (smallest + largest) / 2
        case MmppArrivals(rates=rates, mean_stays=stays):
            return fsum(rate * stay for rate, stay in zip(rates, stays, strict=True)) / fsum(stays)
        case RenewalArrivals(between=between):
            return 1 / between.mean_s
        case TraceArrivals():
            raise Misuse("jobs of a trace come when it says: their load cannot be set")
        case ClosedArrivals():
            raise Misuse("users of a closed model come when they are served: set jobs.arrivals.users instead")


def _faster(arrivals: Arrivals, factor: float) -> Arrivals:
    match arrivals:
        case MmppArrivals(rates=rates):
            return arrivals.model_copy(update={"rates": [rate * factor for rate in rates]})
        case RenewalArrivals(between=between):
            return arrivals.model_copy(update={"between": _longer(between, 1 / factor)})
        case TraceArrivals() | ClosedArrivals():
            raise AssertionError("they have no rate")
        case _:
            return arrivals.model_copy(update={"rate": arrivals.rate * factor})


def _longer(distribution: Distribution, factor: float) -> Distribution:
    """Of times that are `factor` times as long; its shape stays."""
    match distribution:
        case Constant(value=value):
            changed: dict[str, Any] = {"value": value * factor}
        case Exponential(mean=mean) | Erlang(mean=mean) | Lognormal(mean=mean):
            changed = {"mean": mean * factor}
        case Hyperexponential(means=means):
            changed = {"means": [mean * factor for mean in means]}
        case Uniform(low=low, high=high):
            changed = {"low": low * factor, "high": high * factor}
        case Empirical(values=values):
            changed = {"values": [value * factor for value in values]}
    return distribution.model_copy(update=changed)
