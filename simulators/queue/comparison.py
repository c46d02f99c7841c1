"""A scenario under several policies that meet the same jobs (common random numbers), pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from fleet.errors import Misuse
from simulators.queue import lab, statistics
from simulators.queue.lab import Samples
from simulators.queue.statistics import Interval
from simulators.queue.variation import Changes, Value, check_value, told, value_of, varied
from simulators.scenario import Scenario


class Policy(msgspec.Struct, frozen=True):
    """`changes`: what it makes of the scenario. `name` is for people."""

    name: str
    changes: dict[str, Value]


class Difference(msgspec.Struct, frozen=True):
    """From the first policy, replication by replication. `low` and `high`: of the interval of 95 %. `clear`:
    whether that leaves out that there is none."""

    estimate: float
    low: float
    high: float
    clear: bool


class Figure(msgspec.Struct, frozen=True):
    """Of one metric under one policy; the first has no `difference`."""

    estimate: float
    low: float
    high: float
    difference: Difference | None = None


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """`metrics`: by their names, a figure for each policy. What one of them has no figure for is left out."""

    name: str
    seed: int
    replications: int
    warm_up_s: float
    policies: list[str]
    metrics: dict[str, list[Figure]]
    warnings: list[str]


def policies_written(texts: Sequence[str]) -> list[Policy]:
    """Each a discipline, such as `fifo`, or fields with their values, such as `robots=12`, or both, with
    commas. Raises Misuse."""
    return [Policy(text, _changes(text)) for text in texts]


def _changes(text: str) -> dict[str, Value]:
    changes: dict[str, Value] = {}
    for part in map(str.strip, text.split(",")):
        name, equals, value = part.partition("=")
        name, value = (name.strip(), value) if equals else ("queue.discipline", part)
        if not name or not value.strip():
            raise Misuse(
                f"--policy {text!r}: a policy is a discipline, such as fifo, or a field and its value, "
                "such as robots=12; several have commas between them"
            )
        if name in changes:
            raise Misuse(f"--policy {text!r}: {name} is there twice")
        changes[name] = value_of(value)
        check_value(name, changes[name])
    return changes


def policies_of(given: Sequence[str | Changes]) -> list[Policy]:
    """As the command line has them, or by field. Raises Misuse."""
    return [
        policies_written([each])[0]
        if isinstance(each, str)
        else Policy(",".join(f"{name}={told(value)}" for name, value in each.items()), dict(each))
        for each in given
    ]


def compare(
    scenario: Scenario,
    folder: Path,
    policies: Sequence[Policy],
    replications: int = 10,
    warm_up_s: float | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Compared:
    """`folder` is that of the scenario. All leave out the same beginning: without `warm_up_s` the longest
    that one of them needs. `tell` hears how many replications are done, of all policies. Raises Misuse."""
    plans = _plans(scenario, policies)
    _check(plans, replications, warm_up_s)
    found = [
        _played(policy, plan, folder, replications, warm_up_s, _counting_from(number * replications, tell))
        for number, (policy, plan) in enumerate(zip(policies, plans, strict=True))
    ]
    longest_s = max(each.warm_up_s for each in found)
    fair = [_from(longest_s, plan, folder, each) for plan, each in zip(plans, found, strict=True)]
    return Compared(
        name=scenario.name,
        seed=scenario.seed,
        replications=replications,
        warm_up_s=longest_s,
        policies=[policy.name for policy in policies],
        metrics=_metrics(fair),
        warnings=_warnings(policies, found, fair),
    )


def _played(policy: Policy, *asked: Any) -> Samples:
    """As `lab.samples` is asked. Raises Misuse, which names the policy."""
    try:
        return lab.samples(*asked)
    except Misuse as error:
        raise Misuse(f"{policy.name}: {error.detail}") from None


def _from(begins_s: float, plan: Scenario, folder: Path, found: Samples) -> Samples:
    """A window of another length is not a fair one, least of all of a queue that grows."""
    if found.warm_up_s == begins_s:
        return found
    return lab.samples(plan, folder, len(found.values), begins_s)


def _warnings(policies: Sequence[Policy], *played: Sequence[Samples]) -> list[str]:
    warnings = [
        f"{policy.name}: {warning}"
        for round_ in played
        for policy, each in zip(policies, round_, strict=True)
        for warning in each.warnings
    ]
    return list(dict.fromkeys(warnings))


def _check(plans: Sequence[Scenario], replications: int, warm_up_s: float | None) -> None:
    if replications < 2:
        raise Misuse("it takes two replications at least: from one nobody can tell how sure a figure is")
    lasts_s = plans[0].lasts_s
    if any(plan.lasts_s != lasts_s for plan in plans):
        raise Misuse("policies are compared over the same time: leave out the duration, or use --duration")
    if warm_up_s is not None and not 0 <= warm_up_s < lasts_s:
        raise Misuse(f"the warm-up must end before the scenario does, at {lasts_s:g} s")


def _plans(scenario: Scenario, policies: Sequence[Policy]) -> list[Scenario]:
    """Raises Misuse for policies that there is nothing to compare of."""
    if len(policies) < 2:
        raise Misuse("a comparison is of two policies at least, such as --policy fifo --policy lifo")
    names = [policy.name for policy in policies]
    if len(set(names)) < len(names):
        raise Misuse(f"one of the policies is there twice: {', '.join(names)}")
    for policy in policies:
        if "seed" in policy.changes:
            raise Misuse(f"{policy.name}: policies meet the same random numbers: leave out the seed")
    return [varied(scenario, policy.changes) for policy in policies]


def _counting_from(before: int, tell: Callable[[int], None]) -> Callable[[int], None]:
    return lambda done: tell(before + done)


def _metrics(found: Sequence[Samples]) -> dict[str, list[Figure]]:
    rows = [row for each in found for row in each.values]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    columns = {name: [[row[name] for row in each.values] for each in found] for name in names}
    return {
        name: [_figure(values, None if number == 0 else column[0]) for number, values in enumerate(column)]
        for name, column in columns.items()
    }


def _figure(values: list[float], first: list[float] | None) -> Figure:
    own = statistics.mean_of(values)
    difference = None if first is None else _difference(statistics.difference_of(first, values))
    return Figure(own.estimate, own.low, own.high, difference)


def _difference(found: Interval) -> Difference:
    return Difference(found.estimate, found.low, found.high, clear=not found.low <= 0 <= found.high)


def frame_of(compared: Compared) -> pl.DataFrame:
    """A row per metric and policy; the first policy has no difference."""
    rows: list[dict[str, Any]] = [
        {"metric": name, "policy": policy, "estimate": each.estimate, "low": each.low, "high": each.high}
        | _columns(each.difference)
        for name, figures in compared.metrics.items()
        for policy, each in zip(compared.policies, figures, strict=True)
    ]
    numbers = ("estimate", "low", "high", "difference", "difference_low", "difference_high")
    schema: dict[str, pl.DataType] = {"metric": pl.String(), "policy": pl.String()}
    schema |= dict.fromkeys(numbers, pl.Float64()) | {"clear": pl.Boolean()}
    return pl.DataFrame(rows, schema=schema)


def _columns(difference: Difference | None) -> dict[str, Any]:
    if difference is None:
        return dict.fromkeys(("difference", "difference_low", "difference_high", "clear"))
    return {
        "difference": difference.estimate,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "clear": difference.clear,
    }
