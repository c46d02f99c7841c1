"""Queues in virtual time: the rules of the fleet, their theory, and experiments with both.

from simulators.queue import compare, simulate, sweep
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulators.queue.notebook import Comparison as Comparison
    from simulators.queue.notebook import Result as Result
    from simulators.queue.notebook import SweepResult as SweepResult
    from simulators.queue.notebook import compare as compare
    from simulators.queue.notebook import simulate as simulate
    from simulators.queue.notebook import sweep as sweep
    from simulators.scenario import Scenario as Scenario
    from simulators.scenario_file import read_scenario as read_scenario

# Charts and tables take a second to import, which who wants the theory alone need not wait.
_HOMES = {
    **dict.fromkeys(
        ("Comparison", "Result", "SweepResult", "compare", "simulate", "sweep"), "simulators.queue.notebook"
    ),
    "Scenario": "simulators.scenario",
    "read_scenario": "simulators.scenario_file",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
