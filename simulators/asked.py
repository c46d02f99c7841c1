"""A scenario as a command line asks for it."""

from __future__ import annotations

from pathlib import Path

from fleet.errors import Misuse
from simulators import scaled
from simulators.distributions import seconds
from simulators.scenario import Scenario
from simulators.scenario_file import read_scenario


def seconds_of(option: str, written: str) -> float:
    """Raises Misuse, which names the option."""
    try:
        return seconds(written)
    except ValueError as error:
        raise Misuse(f"{option}: {error}") from None


def scenario_asked_for(
    file: Path, robots: int | None, duration: str | None, seed: int | None = None
) -> Scenario:
    """With as many robots in all, for as long, and by that seed, where it is said. Raises Misuse."""
    plan = read_scenario(file)
    plan = plan if seed is None else plan.model_copy(update={"seed": seed})
    plan = scaled.with_robots(plan, robots) if robots else plan
    return scaled.within(plan, seconds_of("--duration", duration)) if duration else plan
