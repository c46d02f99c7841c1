"""The same scenario, larger or shorter."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.errors import Misuse
from simulators.scaled import with_robots, within
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
