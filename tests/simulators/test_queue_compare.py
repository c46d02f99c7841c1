"""Policies that meet the same jobs, and what is said of how they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.errors import Misuse
from simulators.queue import comparison, lab
from simulators.queue.comparison import Compared, frame_of, policies_of, policies_written
from simulators.queue.statistics import mean_of
from simulators.queue.variation import varied
from simulators.scenario import Scenario
from simulators.scenario_file import scenario_of

YARD = """\
name: yard
seed: 3
duration: 2 min
fleets:
  arms: {count: 3, heartbeats: {interval: 60s}}
jobs:
  arrivals: {kind: poisson, rate: 2}
  classes:
    weld: {service: {kind: exponential, mean: 1s}}
"""


def yard() -> Scenario:
    return scenario_of(YARD.encode(), "yard.yaml")


def compared(*policies: str, replications: int = 4, warm_up_s: float | None = 0.0) -> Compared:
    return comparison.compare(yard(), Path(), policies_written(policies), replications, warm_up_s)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("fifo", {"queue.discipline": "fifo"}),
        ("robots=12", {"robots": 12}),
        ("priority, fleets.arms.speed=1.5", {"queue.discipline": "priority", "fleets.arms.speed": 1.5}),
        ("fifo,queue.aging=null", {"queue.discipline": "fifo", "queue.aging": None}),
    ],
)
def test_a_policy_is_a_discipline_or_fields(text: str, changes: dict[str, object]) -> None:
    assert policies_written([text])[0].changes == changes


@pytest.mark.parametrize("discipline", ["production", "fifo", "lifo", "random", "priority", "preemptive"])
def test_every_discipline_is_a_policy(discipline: str) -> None:
    [policy] = policies_written([discipline])
    assert varied(yard(), policy.changes).queue.discipline == discipline


def test_policies_of_a_notebook_are_those_of_the_command_line() -> None:
    assert policies_of(["fifo", {"robots": 4, "queue.aging": None}]) == policies_written(
        ["fifo", "robots=4,queue.aging=null"]
    )


@pytest.mark.parametrize(
    ("policies", "says"),
    [
        (["robots=3"], "two policies at least"),
        (["robots=3", "robots=3"], "is there twice"),
        (["robots=3", "robots=3,robots=4"], "robots is there twice"),
        (["robots=3", ""], "a policy is a discipline"),
        (["robots=3", "robots="], "a policy is a discipline"),
        (["robots=3", "=3"], "a policy is a discipline"),
        (["robots=3", "load=nan"], "load=nan"),
        (["robots=3", "quickest"], "queue.discipline=quickest: queue.discipline: Input should be"),
        (["robots=3", "seed=4"], "leave out the seed"),
        (["robots=3", "duration=1 min"], "over the same time"),
    ],
)
def test_policies_that_cannot_be_compared_are_refused(policies: list[str], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        compared(*policies)


def test_what_no_comparison_can_use_is_refused() -> None:
    with pytest.raises(Misuse, match="two replications"):
        compared("robots=3", "robots=4", replications=1)
    with pytest.raises(Misuse, match="the warm-up must end before the scenario does, at 120 s"):
        compared("robots=3", "robots=4", warm_up_s=120.0)


def test_the_difference_is_taken_pair_by_pair_and_surer_than_the_figures_are() -> None:
    made = compared("robots=3", "robots=4")
    first, second = made.metrics["Wq"]
    assert first.difference is None
    assert second.difference is not None
    assert second.difference.estimate == pytest.approx(second.estimate - first.estimate)
    assert second.difference.clear
    assert second.difference.high < 0
    pairs = second.difference.high - second.difference.low
    assert pairs < (first.high - first.low) + (second.high - second.low)


def test_a_policy_that_changes_nothing_makes_no_difference() -> None:
    """The same jobs, to the last bit."""
    made = compared("production", "robots=3", "fleets.arms.speed=1")
    for figures in made.metrics.values():
        for each in figures[1:]:
            assert each.difference == comparison.Difference(0.0, 0.0, 0.0, clear=False)


def test_figures_are_those_of_a_run() -> None:
    made = compared("robots=3", "robots=4")
    alone = lab.run(varied(yard(), {"robots": 4}), Path(), 4, 0.0).metrics
    assert set(made.metrics) == set(alone)
    for name, figures in made.metrics.items():
        assert (figures[1].estimate, figures[1].low) == (alone[name].estimate, alone[name].low)


def test_all_leave_out_the_same_beginning() -> None:
    """That of the one which needs the longest, or else a queue that grows would look better than it is."""
    made = compared("load=0.3", "load=0.97", warm_up_s=None)
    alone = [lab.samples(varied(yard(), {"load": load}), Path(), 4) for load in (0.3, 0.97)]
    longest_s = max(each.warm_up_s for each in alone)
    assert alone[0].warm_up_s != alone[1].warm_up_s
    assert made.warm_up_s == longest_s
    windows = [lab.samples(varied(yard(), {"load": load}), Path(), 4, longest_s) for load in (0.3, 0.97)]
    expected = [mean_of([each["Wq"] for each in window.values]).estimate for window in windows]
    assert [each.estimate for each in made.metrics["Wq"]] == pytest.approx(expected)


def test_warnings_say_whose_they_are() -> None:
    made = compared("load=0.5", "load=1.5")
    assert any(warning.startswith("load=1.5: ") and "grows for ever" in warning for warning in made.warnings)
    assert not any(warning.startswith("load=0.5: ") and "grows" in warning for warning in made.warnings)


def test_the_table_has_a_row_for_each_metric_and_policy() -> None:
    made = compared("robots=3", "robots=4", replications=2)
    frame = frame_of(made)
    assert frame.height == 2 * len(made.metrics)
    first, second = frame.filter(metric="W").to_dicts()
    assert (first["policy"], first["difference"], first["clear"]) == ("robots=3", None, None)
    assert second["difference"] == pytest.approx(second["estimate"] - first["estimate"])
