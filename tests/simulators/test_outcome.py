"""What a run's figures mean: thresholds, validity, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

from simulators.load import outcome
from simulators.load.latency import QUANTILES
from simulators.load.ledger import Tally
from simulators.load.outcome import Generator, JobFigures, Outcome, Rates, Verdict
from simulators.scenario import COUNTS, LATENCIES, UNITS, Scenario

JOBS = JobFigures(100, 98, 90, 3, 4, 1, 2, 0, {})
BEATS = Rates(1_000, 1_000, 100.0, 99.5)
SUMMARY = dict.fromkeys([*QUANTILES, "max"], 12.5)


def made(**changed: Any) -> Outcome:
    plain: dict[str, Any] = {
        "name": "x",
        "started_at": "2026-01-01T00:00:00.000Z",
        "url": "http://x",
        "seed": 1,
        "robots": 1,
        "watchers": 1,
        "lasted_s": 10.0,
        "valid": True,
        "invalid_because": [],
        "complete": True,
        "incomplete_because": [],
        "latency_ms": SUMMARY,
        "latencies_ms": {"heartbeat_to_watcher": SUMMARY},
        "beats": BEATS,
        "jobs": JOBS,
        "robots_refused": {},
        "watchers_closed": {},
        "generator": Generator({}, 0.0),
        "usage": None,
        "thresholds": [],
        "version": "0",
    }
    numbers = {"sent", "received", "lost", "duplicated", "reordered", "in_flight", "robot_reconnects"}
    numbers |= {"robots_stalled", "watchers_late", "gaps", "not_understood"}
    return Outcome(**plain | dict.fromkeys(numbers, 0) | changed)


def measured() -> dict[str, float]:
    latencies = dict.fromkeys(LATENCIES, SUMMARY)
    return outcome.metrics(latencies, JOBS, Tally(9, 1, 2, 3, 4), BEATS, 10.0)


def test_every_metric_that_a_scenario_may_judge_is_measured() -> None:
    assert set(measured()) == set(UNITS)


def test_metrics_are_what_they_say() -> None:
    found = measured()
    assert {name: found[name] for name in COUNTS} == {
        "jobs_lost": 1,
        "jobs_duplicated": 2,
        "jobs_failed": 3,
        "events_lost": 1,
        "events_duplicated": 2,
        "events_reordered": 3,
    }
    assert (found["heartbeats_per_s"], found["jobs_per_s"], found["life_p99"]) == (99.5, 9.0, 12.5)


@pytest.mark.parametrize(
    ("written", "met"),
    [
        ({"submit_p99": "< 12.5ms"}, False),
        ({"submit_p99": "<= 12.5ms"}, True),
        ({"submit_p99": "< 1s"}, True),
        ({"jobs_per_s": ">= 9/s"}, True),
        ({"jobs_per_s": "> 9/s"}, False),
        ({"jobs_lost": 1}, True),
        ({"jobs_lost": 0}, False),
    ],
)
def test_thresholds_are_held_against_what_was_measured(written: dict[str, Any], met: bool) -> None:
    scenario = Scenario.model_validate(
        {
            "name": "s",
            "duration": "1s",
            "watchers": {"w": {"endpoint": "live-jobs", "count": 1}},
            "thresholds": written,
        }
    )
    [verdict] = outcome.verdicts(scenario, measured())
    assert verdict.met is met
    [unknown] = outcome.verdicts(scenario, {})
    assert (unknown.met, unknown.value) == (False, None)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, 0),
        ({"thresholds": [Verdict("jobs_lost", "== 0", 0, True)]}, 0),
        ({"thresholds": [Verdict("jobs_lost", "== 0", 1, False)]}, 1),
        ({"valid": False, "thresholds": [Verdict("jobs_lost", "== 0", 1, False)]}, 2),
        ({"complete": False}, 2),
    ],
)
def test_exit_codes(changed: dict[str, Any], code: int) -> None:
    assert made(**changed).exit_code == code


@pytest.mark.parametrize(
    ("lag_ms", "sent", "dropped", "says"),
    [
        (99.0, 1_000, 0, []),
        (101.0, 1_000, 0, ["the generator was late itself"]),
        (0.0, 989, 0, ["11 of 1000 heartbeats found no connection"]),
        (0.0, 1_000, 7, ["7 jobs could not be submitted"]),
    ],
)
def test_a_generator_that_did_not_keep_its_plan_makes_a_run_invalid(
    lag_ms: float, sent: int, dropped: int, says: list[str]
) -> None:
    found = outcome.invalid_because(lag_ms, 1_000, sent, dropped)
    assert len(found) == len(says)
    assert all(text in reason for text, reason in zip(says, found, strict=True))


def test_the_summary_is_as_its_schema_says() -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs" / "summary.schema.json").read_text())
    whole = made(thresholds=[Verdict("jobs_lost", "== 0", None, False)], jobs=None)
    jsonschema.validate(json.loads(outcome.as_json(whole)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"valid": True}, schema)


def test_the_summary_is_json_that_comes_back_whole() -> None:
    whole = made(thresholds=[Verdict("jobs_lost", "== 0", None, False)])
    assert msgspec.json.decode(outcome.as_json(whole), type=Outcome) == whole
