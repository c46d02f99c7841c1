"""The same scenario with more robots, or in less time."""

from __future__ import annotations

from fleet.errors import Misuse
from simulators.scenario import MAX_ROBOTS, Scenario


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
