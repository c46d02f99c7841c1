"""Durations as a scenario writes them, and the distributions that they are drawn from."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
_WRITTEN = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(UNITS_S)})")
LONGEST_S = 365 * 86_400.0
MAX_VALUES = 10_000


def seconds(written: Any) -> float:
    """`2s`, `1.5 min`, `250ms`; a bare number is refused, since nobody could tell of what."""
    match = _WRITTEN.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        raise ValueError(
            f"a duration is a number and a unit ({', '.join(UNITS_S)}), such as 250ms or 1.5 min"
        )
    value = float(match[1]) * UNITS_S[match[2]]
    if value > LONGEST_S:
        raise ValueError("a duration is a year at most")
    return value


def written_s(value: float) -> str:
    """As `seconds` reads it, to the last bit."""
    return f"{Decimal(repr(value)):f}s"


class Wrong(ValueError):
    """In the part that `steps` lead to from the one that was looked at."""

    def __init__(self, text: str, *steps: str | int) -> None:
        super().__init__(text)
        self.steps = steps


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("this must take longer than nothing")
    return value


_written = WithJsonSchema(
    {"type": "string", "pattern": f"^{_WRITTEN.pattern}$", "examples": ["250ms", "1.5 min"]}
)
_writes = PlainSerializer(written_s)
Duration = Annotated[float, BeforeValidator(seconds), _writes, _written]  # in seconds
Period = Annotated[float, BeforeValidator(lambda written: _positive(seconds(written))), _writes, _written]
Probability = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1e6)]  # per second


class Part(BaseModel):
    """Of a scenario. What is not known is refused: a misspelt field would be a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Constant(Part):
    kind: Literal["constant"]
    value: Duration

    @property
    def mean_s(self) -> float:
        return self.value


class Exponential(Part):
    kind: Literal["exponential"]
    mean: Period

    @property
    def mean_s(self) -> float:
        return self.mean


class Erlang(Part):
    """The sum of `phases` exponential times: scv = 1 / phases."""

    kind: Literal["erlang"]
    phases: Annotated[int, Field(ge=1, le=1_000)]
    mean: Period

    @property
    def mean_s(self) -> float:
        return self.mean


class Hyperexponential(Part):
    """One of several exponential times, each with its probability."""

    kind: Literal["hyperexponential"]
    means: Annotated[list[Period], Field(min_length=2, max_length=100)]
    probabilities: Annotated[list[Probability], Field(min_length=2, max_length=100)]

    @model_validator(mode="after")
    def _whole(self) -> Hyperexponential:
        if len(self.means) != len(self.probabilities):
            raise ValueError("means and probabilities must be as many")
        if not math.isclose(sum(self.probabilities), 1.0, abs_tol=1e-9):
            raise ValueError(f"probabilities must add up to 1, not {sum(self.probabilities):g}")
        return self

    @property
    def mean_s(self) -> float:
        return math.fsum(p * mean for p, mean in zip(self.probabilities, self.means, strict=True))


class Lognormal(Part):
    """By its mean and squared coefficient of variation."""

    kind: Literal["lognormal"]
    mean: Period
    scv: Annotated[float, Field(gt=0, le=1e4)]

    @property
    def mean_s(self) -> float:
        return self.mean


class Uniform(Part):
    kind: Literal["uniform"]
    low: Duration
    high: Duration

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self

    @property
    def mean_s(self) -> float:
        return (self.low + self.high) / 2


class Empirical(Part):
    """One of the values, each as probable as its weight is heavy; without weights all alike."""

    kind: Literal["empirical"]
    values: Annotated[list[Duration], Field(min_length=1, max_length=MAX_VALUES)]
    weights: Annotated[list[Annotated[float, Field(ge=0, le=1e9)]], Field(max_length=MAX_VALUES)] = []

    @model_validator(mode="after")
    def _whole(self) -> Empirical:
        if self.weights and len(self.weights) != len(self.values):
            raise ValueError("weights must be as many as values")
        if self.weights and sum(self.weights) == 0:
            raise ValueError("one weight at least must be above 0")
        return self

    @property
    def mean_s(self) -> float:
        weights = self.weights or [1.0] * len(self.values)
        return math.fsum(w * v for w, v in zip(weights, self.values, strict=True)) / math.fsum(weights)


Distribution = Annotated[
    Constant | Exponential | Erlang | Hyperexponential | Lognormal | Uniform | Empirical,
    Field(discriminator="kind"),
]


def _always(written: Any) -> Any:
    if not isinstance(written, str | dict):
        raise ValueError("this is a duration, such as 5 min, or a distribution with its kind")
    return {"kind": "constant", "value": written} if isinstance(written, str) else written


def _some(patience: Distribution) -> Distribution:
    if patience.mean_s <= 0:
        raise ValueError("this must take longer than nothing")
    return patience


# How long somebody waits: always the same time (`5 min`), or one of a distribution.
Patience = Annotated[
    Distribution,
    BeforeValidator(_always),
    AfterValidator(_some),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^{_WRITTEN.pattern}$"},
                {"type": "object", "required": ["kind"]},
            ]
        }
    ),
]
