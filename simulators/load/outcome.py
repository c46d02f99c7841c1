"""What came of a load test: figures, thresholds, and whether they can be believed."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import msgspec

from simulators.load.ledger import Tally
from simulators.load.usage_log import UsageFigures
from simulators.scenario import Scenario, Threshold

MOST_LAG_MS = 100.0  # of the generator, at its p99
LEAST_SENT = 0.99  # of the beats that were due
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


class Rates(msgspec.Struct, frozen=True):
    """`offered`: due by the scenario; `sent`: on a connection (beats) or answered with 201 (jobs)."""

    offered: int
    sent: int
    offered_per_s: float
    sent_per_s: float


class JobFigures(msgspec.Struct, frozen=True):
    offered: int
    accepted: int
    completed: int
    failed: int
    unfinished: int
    lost: int
    duplicated: int
    dropped: int
    refused: dict[str, int]


class Verdict(msgspec.Struct, frozen=True):
    """`value` None: the run did not measure it, and then it is not met."""

    metric: str
    wanted: str
    value: float | None
    met: bool


class Generator(msgspec.Struct, frozen=True):
    """How well this side kept its own plan."""

    lag_ms: dict[str, float]
    clock_error_ms: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`valid` False: see `invalid_because`; the figures are of the generator as much as of the server.
    `sent`, `received`, `lost`, `duplicated` and `reordered` count events over all watchers that were there
    all the time; `in_flight` had been said last on connections that ended, and may have been taken or not.
    `complete` False: the run was cut short."""

    name: str
    started_at: str
    url: str
    seed: int
    robots: int
    watchers: int
    lasted_s: float
    valid: bool
    invalid_because: list[str]
    complete: bool
    incomplete_because: list[str]
    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    in_flight: int
    latency_ms: dict[str, float]
    latencies_ms: dict[str, dict[str, float]]
    beats: Rates
    jobs: JobFigures | None
    robot_reconnects: int
    robots_stalled: int
    robots_refused: dict[str, int]
    watchers_closed: dict[str, int]
    watchers_late: int
    gaps: int
    not_understood: int
    generator: Generator
    usage: UsageFigures | None
    thresholds: list[Verdict]
    version: str

    @property
    def exit_code(self) -> int:
        if not self.valid or not self.complete:
            return 2
        return 0 if all(verdict.met for verdict in self.thresholds) else 1


def invalid_because(lag_p99_ms: float, offered: int, sent: int, dropped_jobs: int) -> list[str]:
    """`offered` and `sent` heartbeats."""
    reasons = []
    if lag_p99_ms > MOST_LAG_MS:
        reasons.append(
            f"the generator was late itself: 1 % of what it sent left {lag_p99_ms:.0f} ms or more after it "
            f"was due, and more than {MOST_LAG_MS:.0f} ms is no measurement of the server: use fewer robots, "
            "or more machines"
        )
    if sent < LEAST_SENT * offered:
        reasons.append(f"{offered - sent} of {offered} heartbeats found no connection")
    if dropped_jobs:
        reasons.append(f"{dropped_jobs} jobs could not be submitted")
    return reasons


def metrics(
    latencies_ms: Mapping[str, Mapping[str, float]],
    jobs: JobFigures | None,
    events: Tally,
    beats: Rates,
    lasted_s: float,
) -> dict[str, float]:
    """What thresholds can be about, as far as it was measured."""
    found: dict[str, float] = {
        f"{name}_{quantile}": value
        for name, summary in latencies_ms.items()
        for quantile, value in summary.items()
    }
    found |= {f"events_{fate}": getattr(events, fate) for fate in ("lost", "duplicated", "reordered")}
    found["heartbeats_per_s"] = beats.sent_per_s
    if jobs is not None:
        found |= {f"jobs_{fate}": getattr(jobs, fate) for fate in ("lost", "duplicated", "failed")}
        found["jobs_per_s"] = jobs.completed / lasted_s if lasted_s else 0.0
    return found


def verdicts(scenario: Scenario, measured: Mapping[str, float]) -> list[Verdict]:
    return [
        Verdict(metric, _written(threshold), value := measured.get(metric), _met(threshold, value))
        for metric, threshold in scenario.thresholds.items()
    ]


def _met(threshold: Threshold, value: float | None) -> bool:
    return value is not None and bool(_COMPARE[threshold.comparison](value, threshold.value))


def _written(threshold: Threshold) -> str:
    unit = f" {threshold.unit}" if threshold.unit == "ms" else threshold.unit
    return f"{threshold.comparison} {threshold.value:g}{unit}"


def as_json(outcome: Outcome) -> bytes:
    plain: Any = msgspec.to_builtins(outcome)
    return msgspec.json.format(msgspec.json.encode(plain), indent=2)
