"""The kernels against plain Python, and both against the code of production: job by job, on the same random
numbers, over models that are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.keyed import Ints
from simulators.queue import fast, plain, production
from simulators.queue.engines import Play
from simulators.queue.kernels.tally import Tally
from simulators.scenario import Scenario

LASTS_S = 120
MOST_JOBS = 4_000
UNTOLD = -7
Part = dict[str, Any]


def lengths(mean_ms: int) -> st.SearchStrategy[Part]:
    """Some of them such that many things happen at one time."""
    mean = f"{mean_ms}ms"
    return st.sampled_from(
        [
            {"kind": "exponential", "mean": mean},
            {"kind": "constant", "value": mean},
            {"kind": "erlang", "phases": 3, "mean": mean},
            {"kind": "lognormal", "mean": mean, "scv": 2.0},
            {"kind": "uniform", "low": "0s", "high": f"{2 * mean_ms}ms"},
            {"kind": "empirical", "values": [mean, f"{2 * mean_ms}ms"]},
            {"kind": "hyperexponential", "means": [mean, f"{9 * mean_ms}ms"], "probabilities": [0.9, 0.1]},
        ]
    )


CAPABILITIES = st.sampled_from([[], [], ["a"], ["a", "b"]])
OPEN_ARRIVALS = st.one_of(
    st.sampled_from(
        [
            {"kind": "poisson", "rate": 1.0},
            {"kind": "poisson", "rate": 3.0},
            {"kind": "constant", "rate": 2.0},
            {"kind": "batches", "rate": 0.6, "smallest": 1, "largest": 4},
            {"kind": "mmpp", "rates": [0.5, 4.0], "mean_stays": ["20s", "5s"]},
        ]
    ),
    st.fixed_dictionaries({"kind": st.just("renewal"), "between": lengths(700)}),
)
ARRIVALS = st.one_of(
    OPEN_ARRIVALS,
    st.fixed_dictionaries({"kind": st.just("closed"), "users": st.integers(1, 9), "think": lengths(2_000)}),
)
BREAKDOWNS = st.fixed_dictionaries(
    {
        "up": lengths(5_000),
        "repair": lengths(1_000),
        "counts": st.sampled_from(["always", "working"]),
        "job": st.sampled_from(["resumes", "restarts", "head"]),
    }
)
FLEETS = st.fixed_dictionaries(
    {
        "count": st.integers(1, 3),
        "heartbeats": st.just({"interval": "60s"}),
        "speed": st.sampled_from([1.0, 1.0, 0.5, 1.7]),
        "failure_probability": st.sampled_from([0.0, 0.0, 0.3]),
        "capabilities": CAPABILITIES,
        "max_concurrent_jobs": st.integers(1, 2),
    },
    optional={"breakdowns": BREAKDOWNS},
).map(lambda each: each | {"max_concurrent_jobs": 1} if "breakdowns" in each else each)
CLASSES = st.fixed_dictionaries(
    {
        "service": lengths(1_000),
        "weight": st.sampled_from([1.0, 3.0]),
        "priority": st.integers(0, 3),
        "max_attempts": st.integers(1, 3),
        "each_attempt": st.sampled_from(["same", "anew"]),
        "required_capabilities": CAPABILITIES,
    },
    optional={"patience": lengths(3_000).filter(lambda each: each["kind"] != "uniform")},
)
QUEUES = st.one_of(
    st.fixed_dictionaries(
        {"discipline": st.sampled_from(["fifo", "lifo", "random", "priority", "preemptive"])},
        optional={
            "capacity": st.integers(1, 8),
            "balking": st.sampled_from(
                [{"kind": "discouraged"}, {"kind": "table", "probabilities": [1.0, 1.0, 0.9, 0.5]}]
            ),
            "backoff": st.sampled_from([{"base": "0s", "most": "0s"}, {"base": "1s", "most": "3s"}]),
        },
    ),
    st.fixed_dictionaries(
        {"discipline": st.just("production"), "aging": st.sampled_from(["0s", "1s", "60s"])}
    ),
)


def numbered(parts: list[Part]) -> Mapping[str, Part]:
    return {f"part-{number}": each for number, each in enumerate(parts)}


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    fleets = numbered(draw(st.lists(FLEETS, min_size=1, max_size=3)))
    classes = numbered(draw(st.lists(CLASSES, min_size=1, max_size=3)))
    written: Part = {
        "name": "drawn",
        "duration": f"{LASTS_S}s",
        "queue": draw(QUEUES),
        "fleets": fleets,
        "jobs": {
            "arrivals": draw(ARRIVALS),
            "classes": classes,
        },
    }
    if any("breakdowns" in each for each in fleets.values()) and draw(st.booleans()):
        written["repair_crew"] = 1
    return Scenario.model_validate(written)


def played(play: Play, scenario: Scenario, seed: int) -> tuple[Tally, Ints]:
    told = np.full((MOST_JOBS, 4), UNTOLD)
    return play(scenario, Path(), seed, 20 * 10**9, told), told


def assert_alike(one: Play, other: Play, scenario: Scenario, seed: int) -> None:
    """What became of every job, to the nanosecond, and what was counted."""
    tally, told = played(one, scenario, seed)
    its_tally, its_told = played(other, scenario, seed)
    np.testing.assert_array_equal(told, its_told)
    for name, mine, its in zip(Tally._fields[1:], tally[1:], its_tally[1:], strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-9, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(scenario=scenarios(), seed=st.integers(0, 2**32))
def test_kernels_do_what_plain_python_does(scenario: Scenario, seed: int) -> None:
    assert_alike(fast.play, plain.play, scenario, seed)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@settings(max_examples=3_000, deadline=None)
@given(scenario=scenarios(), seed=st.integers(0, 2**32))
def test_kernels_do_what_plain_python_does_in_many_models(scenario: Scenario, seed: int) -> None:
    assert_alike(fast.play, plain.play, scenario, seed)


@st.composite
def orderly_scenarios(draw: st.DrawFn) -> Scenario:
    """Nobody is turned away, gives up, fails or breaks, and all can do everything."""
    fleet = {"heartbeats": {"interval": "60s"}}
    fleets = [
        fleet | {"count": draw(st.integers(1, 3)), "speed": draw(st.sampled_from([1.0, 0.5, 1.7]))}
        for _ in range(draw(st.integers(1, 2)))
    ]
    classes = [
        {"service": draw(lengths(1_000)), "priority": draw(st.integers(0, 20))}
        for _ in range(draw(st.integers(1, 3)))
    ]
    discipline = draw(st.sampled_from(["production", "fifo", "lifo", "priority"]))
    aging = {"aging": draw(st.sampled_from(["0s", "1s", "60s"]))} if discipline == "production" else {}
    return Scenario.model_validate(
        {
            "name": "drawn",
            "duration": f"{LASTS_S}s",
            "queue": {"discipline": discipline} | aging,
            "fleets": numbered(fleets),
            "jobs": {"arrivals": draw(OPEN_ARRIVALS), "classes": numbered(classes)},
        }
    )


@settings(max_examples=60, deadline=None)
@given(scenario=orderly_scenarios(), seed=st.integers(0, 2**32))
def test_the_kernels_of_plain_lines_do_what_plain_python_does(scenario: Scenario, seed: int) -> None:
    assert_alike(fast.play, plain.play, scenario, seed)


# -- against production: of what it has rules for, with times that differ, since those who have been idle for
# equally long go by other ties there, and with robots that are never idle for so long that a claim ends

DIFFERENT = st.sampled_from(
    [
        {"kind": "exponential", "mean": "1s"},
        {"kind": "erlang", "phases": 3, "mean": "1s"},
        {"kind": "lognormal", "mean": "1s", "scv": 2.0},
    ]
)


@st.composite
def production_scenarios(draw: st.DrawFn) -> Scenario:
    fleet = {"heartbeats": {"interval": "60s"}}
    fleets = [
        fleet
        | {
            "count": draw(st.integers(1, 3)),
            "speed": draw(st.sampled_from([1.0, 0.5, 1.7])),
            "failure_probability": draw(st.sampled_from([0.0, 0.0, 1.0])),
            "capabilities": draw(CAPABILITIES),
        }
        for _ in range(draw(st.integers(1, 2)))
    ]
    classes = [
        {
            "service": draw(DIFFERENT),
            "priority": draw(st.integers(0, 3)),
            "max_attempts": draw(st.integers(1, 3)),
            "required_capabilities": draw(CAPABILITIES),
        }
        | draw(st.sampled_from([{}, {"patience": {"kind": "exponential", "mean": "3s"}}, {"patience": "2s"}]))
        for _ in range(draw(st.integers(1, 3)))
    ]
    arrivals = draw(
        st.sampled_from(
            [
                {"kind": "poisson", "rate": 3.0},
                {"kind": "renewal", "between": {"kind": "erlang", "phases": 2, "mean": "400ms"}},
                {"kind": "closed", "users": 9, "think": {"kind": "exponential", "mean": "1s"}},
            ]
        )
    )
    queue: Part = {"discipline": draw(st.sampled_from(["production", "fifo", "priority"]))}
    if queue["discipline"] == "production":
        queue["aging"] = draw(st.sampled_from(["0s", "1s", "60s"]))
    return Scenario.model_validate(
        {
            "name": "drawn",
            "duration": "60s",
            "queue": queue | {"backoff": {"base": "0s", "most": "0s"}},
            "fleets": numbered(fleets),
            "jobs": {"arrivals": arrivals, "classes": numbered(classes)},
        }
    )


@settings(max_examples=12, deadline=None)
@given(scenario=production_scenarios(), seed=st.integers(0, 2**32))
def test_kernels_do_what_production_does(scenario: Scenario, seed: int) -> None:
    assert_alike(fast.play, production.play, scenario, seed)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@settings(max_examples=400, deadline=None)
@given(scenario=production_scenarios(), seed=st.integers(0, 2**32))
def test_kernels_do_what_production_does_in_many_models(scenario: Scenario, seed: int) -> None:
    assert_alike(fast.play, production.play, scenario, seed)


def test_hundreds_of_robots_are_served_in_a_heap() -> None:
    """More than are kept in order."""
    scenario = Scenario.model_validate(
        {
            "name": "many",
            "duration": "60s",
            "fleets": {"a": {"count": 150, "heartbeats": {"interval": "60s"}, "speed": 0.9}},
            "jobs": {
                "arrivals": {"kind": "poisson", "rate": 50.0},
                "classes": {"w": {"service": {"kind": "empirical", "values": ["2s", "3s"]}}},
            },
        }
    )
    assert_alike(fast.play, plain.play, scenario, seed=3)
    assert played(fast.play, scenario, 3)[1][:, 3].max() > 0
