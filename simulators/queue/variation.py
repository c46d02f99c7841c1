"""A scenario with some of its fields changed, as a command line or a notebook writes that down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from pydantic import ValidationError

from fleet.errors import Misuse
from simulators import scaled
from simulators.asked import seconds_of
from simulators.scenario import Scenario

Value = bool | int | float | str | None
Changes = Mapping[str, Value]

_WHOLE = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_WORDS: dict[str, Value] = {"true": True, "false": False, "null": None}


def value_of(written: str) -> Value:
    """A number, true, false or null; anything else is text."""
    text = written.strip()
    if _WHOLE.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return _WORDS.get(text, text)


def check_value(name: str, value: Any) -> None:
    """Raises Misuse for what no field of a scenario can be."""
    if isinstance(value, str) and value.lower().lstrip("+-") in ("nan", "inf", "infinity", ""):
        raise Misuse(f"{name}={value}: a value is a number or a word")
    if isinstance(value, float) and not isfinite(value):
        raise Misuse(f"{name}={value}: this is no number that anything could be")
    if not (value is None or isinstance(value, bool | int | float | str)):
        raise Misuse(f"{name}: a value is a number or a word, not {type(value).__name__}")


def label_of(changes: Changes) -> str:
    """For people: `robots=10, load=0.9`."""
    return ", ".join(f"{name}={told(value)}" for name, value in changes.items())


def told(value: Value) -> str:
    """As a command line has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def varied(scenario: Scenario, changes: Changes) -> Scenario:
    """`robots`: in all, each fleet in its proportion. `load`: rho, by the rate of the arrivals. `duration`:
    with the stages in proportion. All else is a field by its path, such as `fleets.arms.speed`. Fields are
    changed first, and the load last. Raises Misuse, which names the changes and what is wrong with them."""
    for name, value in changes.items():
        check_value(name, value)
    try:
        made = _with_fields(scenario, {name: changes[name] for name in changes if name not in _OF_THE_WHOLE})
        for name, change in _OF_THE_WHOLE.items():
            if name in changes:
                made = change(made, changes[name])
        return _checked(made.model_dump())
    except Misuse as error:
        raise Misuse(f"{label_of(changes)}: {error.detail}") from None


def _with_robots(scenario: Scenario, robots: Value) -> Scenario:
    if not isinstance(robots, int) or isinstance(robots, bool):
        raise Misuse("robots are counted in whole numbers")
    return scaled.with_robots(scenario, robots)


def _at_load(scenario: Scenario, load: Value) -> Scenario:
    if not isinstance(load, int | float) or isinstance(load, bool):
        raise Misuse("a load is a number, such as 0.8")
    return scaled.at_load(scenario, load)


def _within(scenario: Scenario, duration: Value) -> Scenario:
    seconds = seconds_of("duration", told(duration))
    if seconds == 0:
        raise Misuse("this must take longer than nothing")
    return scaled.within(scenario, seconds)


# In the order in which they are made: the load is of the robots that are there.
_OF_THE_WHOLE = {"duration": _within, "robots": _with_robots, "load": _at_load}


# -- fields by their path


def _with_fields(scenario: Scenario, changes: Changes) -> Scenario:
    """All at once: what two of them say may be sound only together."""
    if not changes:
        return scenario
    content = scenario.model_dump()
    for path, value in changes.items():
        _put(content, path, value)
    return _checked(content)


def _put(content: dict[str, Any], path: str, value: Value) -> None:
    node: Any = content
    *above, last = path.split(".")
    for step in above:
        node = node[_key(node, step, path)]
    node[_key(node, last, path)] = value


def _key(node: Any, step: str, path: str) -> str | int:
    """Of what is there. Raises Misuse."""
    if isinstance(node, dict) and step in node:
        return step
    if isinstance(node, list) and step.isdecimal() and int(step) < len(node):
        return int(step)
    raise Misuse(f"{path}: there is no {step!r} {_instead(node)}")


def _instead(node: Any) -> str:
    if isinstance(node, dict):
        names = [*_OF_THE_WHOLE, *node] if "fleets" in node else list(node)
        return f"here; there is {', '.join(names)}"
    if isinstance(node, list):
        return f"among these {len(node)}, which are counted from 0"
    return (
        "in what the scenario does not have: write it into its file first" if node is None else "in a value"
    )


def _checked(content: dict[str, Any]) -> Scenario:
    try:
        return Scenario.model_validate(content)
    except ValidationError as error:
        raise Misuse("; ".join(problems_of(error))) from None


def problems_of(error: ValidationError) -> list[str]:
    """Three at most, with the field of each."""
    found = []
    for problem in error.errors(include_url=False)[:3]:
        steps = (*problem["loc"], *getattr(problem.get("ctx", {}).get("error"), "steps", ()))
        words = problem["msg"].removeprefix("Value error, ")
        found.append(f"{'.'.join(map(str, steps))}: {words}" if steps else words)
    return found
