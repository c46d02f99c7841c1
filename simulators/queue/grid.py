"""What a sweep goes over: axes with their values, and every combination of these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice, product
from math import prod
from typing import Any

import msgspec

from fleet.errors import Misuse
from simulators.queue.variation import Value, check_value, value_of

MOST_POINTS = 10_000
_EXAMPLE = "such as robots=10:100:10 or load=0.5,0.8,0.9"


class Axis(msgspec.Struct, frozen=True):
    """`name`: of what is varied, as `variation.varied` knows it."""

    name: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise Misuse(f"{self.name}: there is no value in this; an axis is a name and values, {_EXAMPLE}")
        if len(self.values) > MOST_POINTS:
            raise Misuse(f"{self.name}: these are more than {MOST_POINTS:,} values")
        for value in self.values:
            check_value(self.name, value)
        if len(set(self.values)) < len(self.values):
            raise Misuse(f"{self.name}: one of the values is there twice")


class Grid(msgspec.Struct, frozen=True):
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        if not names:
            raise Misuse(f"a sweep goes over one axis at least, {_EXAMPLE}")
        if len(set(names)) < len(names):
            raise Misuse(f"one of the axes is there twice: {', '.join(names)}")
        if len(self) > MOST_POINTS:
            raise Misuse(f"these are {len(self):,} points; a sweep has {MOST_POINTS:,} at most")

    def __len__(self) -> int:
        return prod(len(axis.values) for axis in self.axes)

    def points(self) -> Iterator[dict[str, Value]]:
        """The value of each axis by its name; the last axis goes fastest."""
        names = [axis.name for axis in self.axes]
        for values in product(*(axis.values for axis in self.axes)):
            yield dict(zip(names, values, strict=True))


def grid_of(over: Mapping[str, Any]) -> Grid:
    """By name, the values as a sequence, or as the command line has them. Raises Misuse."""
    return Grid(tuple(Axis(name, _values(name, given)) for name, given in over.items()))


def grid_written(over: Sequence[str]) -> Grid:
    """Each `name=values`. Raises Misuse."""
    axes = []
    for text in over:
        name, equals, values = text.partition("=")
        if not equals or not name.strip():
            raise Misuse(f"--over {text!r}: an axis is a name and values, {_EXAMPLE}")
        axes.append(Axis(name.strip(), _written(name.strip(), values)))
    return Grid(tuple(axes))


def _values(name: str, given: Any) -> tuple[Value, ...]:
    if isinstance(given, str):
        return _written(name, given)
    if not isinstance(given, Iterable):
        raise Misuse(f"{name}: the values of an axis are a list or a range, not {given!r}")
    # Those of numpy and polars become Python's.
    return tuple(each.item() if hasattr(each, "item") else each for each in islice(given, MOST_POINTS + 1))


def _written(name: str, text: str) -> tuple[Value, ...]:
    """A comma between values, or ranges of them."""
    found: list[Value] = []
    for part in filter(None, map(str.strip, text.split(","))):
        found += _range(name, part) if ":" in part else [value_of(part)]
    return tuple(found)


def _range(name: str, text: str) -> list[Value]:
    """`start:stop:step`, with the stop, if a step leads there. In decimals, which add up as they are read."""
    try:
        start, stop, step = map(Decimal, text.split(":"))
        finite = start.is_finite() and stop.is_finite() and step.is_finite()
    except (InvalidOperation, ValueError):
        finite = False
    if not finite:
        raise Misuse(f"{name}={text}: a range is three numbers, start:stop:step, such as 10:100:10")
    if step == 0 or (stop - start) / step < 0:
        raise Misuse(f"{name}={text}: no step of {step} leads from {start} to {stop}")
    if (stop - start) / step > MOST_POINTS:
        raise Misuse(f"{name}={text}: these are more than {MOST_POINTS:,} values")
    steps = int((stop - start) / step)
    return [value_of(f"{start + number * step:f}") for number in range(steps + 1)]
