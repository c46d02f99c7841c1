"""The same scenario, larger or shorter."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.errors import Misuse
from simulators.scaled import at_load, offered_load, with_robots, within
from simulators.scenario import Scenario

BEATS = {"interval": "1s"}


def scenario(*counts: int, **more: Any) -> Scenario:
    fleets = {f"f{n}": {"count": count, "heartbeats": BEATS} for n, count in enumerate(counts)}
    return Scenario.model_validate({"name": "s", "duration": "10s", "fleets": fleets} | more)


@pytest.mark.parametrize(
    ("counts", "robots", "expected"),
    [
        ((10,), 3, [3]),
        ((10, 30), 80, [20, 60]),
        ((10, 30), 2, [1, 1]),
        ((1, 1, 998), 10, [1, 1, 8]),
        ((998, 1, 1), 3, [1, 1, 1]),
        ((3, 3, 3), 10, [3, 4, 3]),
    ],
)
def test_fleets_keep_their_proportion_and_add_up(
    counts: tuple[int, ...], robots: int, expected: list[int]
) -> None:
    made = with_robots(scenario(*counts), robots)
    assert [fleet.count for fleet in made.fleets.values()] == expected
    assert made.robots == robots


@pytest.mark.parametrize("robots", [0, 1, 1_000_001])
def test_fewer_than_one_each_or_too_many_is_refused(robots: int) -> None:
    with pytest.raises(Misuse, match="takes 2 to 1000000 robots"):
        with_robots(scenario(1, 1), robots)


def test_without_a_fleet_there_is_nothing_to_make_larger() -> None:
    watchers = {"w": {"endpoint": "live-jobs", "count": 1}}
    with pytest.raises(Misuse, match="no fleet"):
        with_robots(Scenario.model_validate({"name": "s", "duration": "1s", "watchers": watchers}), 5)


def test_stages_and_faults_keep_their_places() -> None:
    stages = [{"kind": "ramp", "lasts": "20s", "load": 1.0}, {"kind": "hold", "lasts": "60s"}]
    faults = [{"kind": "drop_watchers", "at": "40s"}]
    made = within(scenario(1, duration=None, stages=stages, faults=faults), 8.0)
    assert [stage.lasts for stage in made.stages] == [2.0, 6.0]
    assert made.faults[0].at == 4.0
    assert made.lasts_s == 8.0
    assert within(scenario(1), 3.0).lasts_s == 3.0


SERVICE = {"kind": "exponential", "mean": "2s"}
WELD = {"classes": {"weld": {"service": SERVICE}}}
MORE = {"kind": "mmpp", "rates": [0.0, 4.0], "mean_stays": ["30s", "10s"]}


def with_jobs(arrivals: dict[str, Any], **classes: Any) -> Scenario:
    """Four places, half of them of robots of twice the speed: six places of one."""
    fleets = {
        "slow": {"count": 2, "heartbeats": BEATS},
        "fast": {"count": 1, "heartbeats": BEATS, "speed": 2.0, "max_concurrent_jobs": 2},
    }
    jobs = {"arrivals": arrivals} | ({"classes": classes} if classes else WELD)
    return scenario(jobs=jobs, fleets=fleets)


@pytest.mark.parametrize(
    ("arrivals", "load"),
    [
        ({"kind": "constant", "rate": 1.5}, 0.5),
        ({"kind": "poisson", "rate": 1.5}, 0.5),
        ({"kind": "sinusoid", "rate": 1.5, "amplitude": 0.5, "period": "5s"}, 0.5),
        ({"kind": "batches", "rate": 1, "smallest": 1, "largest": 3}, 2 / 3),
        (MORE, 1 / 3),
        ({"kind": "renewal", "between": {"kind": "constant", "value": "2s"}}, 1 / 6),
        ({"kind": "renewal", "between": {"kind": "erlang", "phases": 2, "mean": "2s"}}, 1 / 6),
        ({"kind": "renewal", "between": {"kind": "lognormal", "scv": 2.0, "mean": "2s"}}, 1 / 6),
        ({"kind": "renewal", "between": {"kind": "uniform", "low": "1s", "high": "3s"}}, 1 / 6),
        ({"kind": "renewal", "between": {"kind": "empirical", "values": ["1s", "3s"]}}, 1 / 6),
        (
            {
                "kind": "renewal",
                "between": {
                    "kind": "hyperexponential",
                    "means": ["1s", "3s"],
                    "probabilities": [0.5, 0.5],
                },
            },
            1 / 6,
        ),
    ],
    ids=lambda value: str(value.get("between", value)["kind"]) if isinstance(value, dict) else None,
)
def test_arrivals_are_made_as_fast_as_a_load_wants_them(arrivals: dict[str, Any], load: float) -> None:
    made = with_jobs(arrivals)
    assert offered_load(made) == pytest.approx(load)
    assert offered_load(at_load(made, 0.9)) == pytest.approx(0.9)


def test_a_load_is_of_what_jobs_take_on_average() -> None:
    short = {"service": {"kind": "constant", "value": "1s"}, "weight": 3.0}
    made = with_jobs({"kind": "poisson", "rate": 1.0}, weld={"service": SERVICE}, short=short)
    assert offered_load(made) == pytest.approx(1.25 / 6)


@pytest.mark.parametrize(
    ("made", "load", "says"),
    [
        (scenario(1), 0.5, "has no jobs"),
        (scenario(jobs={"arrivals": {"kind": "poisson", "rate": 1}} | WELD), 0.5, "has no robots"),
        (with_jobs({"kind": "poisson", "rate": 1}), 0.0, "above 0"),
        (with_jobs({"kind": "poisson", "rate": 1}), float("nan"), "above 0"),
        (with_jobs({"kind": "trace", "file": "x.csv"}), 0.5, "cannot be set"),
        (with_jobs({"kind": "closed", "users": 3, "think": SERVICE}), 0.5, "jobs.arrivals.users"),
        (
            with_jobs({"kind": "poisson", "rate": 1}, nop={"service": {"kind": "constant", "value": "0s"}}),
            0.5,
            "take no time",
        ),
    ],
)
def test_a_load_that_cannot_be_is_refused(made: Scenario, load: float, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        at_load(made, load)
