"""Replications of scenarios, beside theory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.errors import Misuse
from simulators.queue import lab, theory
from simulators.queue.play import play, seed_of
from simulators.scenario import Scenario
from simulators.scenario_file import scenario_of

QUEUE = """\
name: queue
seed: 7
duration: {lasts}
fleets:
  robots: {{count: {robots}, heartbeats: {{interval: 60s}}}}
jobs:
  arrivals: {arrivals}
  classes:
    weld: {{service: {service}{more}}}
"""


def scenario(
    arrivals: str = "{kind: poisson, rate: 0.5}",
    service: str = "{kind: exponential, mean: 1s}",
    robots: int = 1,
    lasts: str = "10 min",
    more: str = "",
) -> Scenario:
    text = QUEUE.format(arrivals=arrivals, service=service, robots=robots, lasts=lasts, more=more)
    return scenario_of(text.encode(), "queue.yaml")


def found(what: Scenario, **given: Any) -> lab.Findings:
    return lab.run(what, Path(), **given)


@pytest.mark.parametrize(
    ("what", "model"),
    [
        (scenario(lasts="20 min"), "M/M/1"),
        (scenario("{kind: poisson, rate: 2}", robots=4, lasts="5 min"), "M/M/4"),
        (scenario(service="{kind: constant, value: 1s}", lasts="20 min"), "M/G/1"),
        (scenario("{kind: constant, rate: 0.7}", lasts="15 min"), "D/M/1"),
    ],
)
def test_the_fleet_is_the_queue_that_it_should_be(what: Scenario, model: str) -> None:
    made = found(what, replications=6)
    assert made.model == model
    judged = {name: each.z for name, each in made.metrics.items() if each.z is not None}
    assert {"L", "Lq", "W", "Wq", "utilisation", "throughput", "P_wait"} <= set(judged)
    assert all(abs(z) < 4.5 for z in judged.values()), judged
    assert all(each.low <= each.estimate <= each.high for each in made.metrics.values())


def test_theory_that_is_an_approximation_is_shown_and_not_judged() -> None:
    made = found(
        scenario("{kind: poisson, rate: 1}", "{kind: constant, value: 1s}", robots=2), replications=2
    )
    assert made.model == "M/G/2, by Allen and Cunneen"
    assert made.metrics["Wq"].theory == pytest.approx(0.5 * theory.mmc(1.0, 1.0, 2).Wq)
    assert made.metrics["Wq"].z is None


@pytest.mark.parametrize(
    "what",
    [
        scenario(more=", patience: 3s"),
        scenario("{kind: batches, rate: 0.1, smallest: 1, largest: 3}"),
        scenario("{kind: sinusoid, rate: 0.5, amplitude: 0.5, period: 60s}"),
        scenario("{kind: closed, users: 2, think: {kind: constant, value: 1s}}"),
    ],
)
def test_a_queue_that_no_textbook_here_has_is_played_all_the_same(what: Scenario) -> None:
    made = found(what, replications=2)
    assert made.model == ""
    assert made.metrics["Wq"].theory is None
    assert made.jobs > 100


def test_who_has_no_patience_is_not_served() -> None:
    made = found(scenario("{kind: poisson, rate: 2}", more=", patience: 2s"), replications=4)
    assert 0.4 < made.metrics["P_abandon"].estimate < 0.6
    assert made.metrics["utilisation"].estimate > 0.95


def test_a_queue_that_grows_for_ever_is_told_and_ends() -> None:
    made = found(scenario("{kind: poisson, rate: 1.5}"), replications=2)
    assert "the queue grows for ever" in made.warnings[0]
    assert "first 600 s" in made.warnings[0]
    assert made.metrics["Lq"].theory is None


def test_the_same_seed_gives_the_same_figures_and_replications_are_independent() -> None:
    assert found(scenario(), replications=2) == found(scenario(), replications=2)
    other = scenario().model_copy(update={"seed": 8})
    assert found(scenario(), replications=2).metrics != found(other, replications=2).metrics
    assert len({seed_of(1, replication) for replication in range(100)}) == 100
    one, two = (play(scenario(), Path(), replication) for replication in (0, 1))
    assert one.waits_s()[1].tolist() != two.waits_s()[1].tolist()


def test_users_who_think_at_random_come_when_they_are_due() -> None:
    """Each thinks for 4 s and is served for 1 s, on average: the machine repair problem, with users for
    robots that break, and a robot that mends."""
    closed = "{kind: closed, users: 5, think: {kind: exponential, mean: 4s}}"
    made = found(scenario(closed, lasts="20 min"), replications=6, warm_up_s=60.0)
    truth = theory.machine_repair(5, failure_rate=1 / 4, repair_rate=1.0, repairers=1)
    for name in ("L", "Lq", "W", "Wq", "throughput", "utilisation"):
        assert made.metrics[name].estimate == pytest.approx(getattr(truth, name), rel=0.1), name


def test_the_jobs_of_the_first_replication_are_those_of_a_load_test() -> None:
    assert seed_of(7, 0) == 7


def test_the_beginning_is_left_out_by_the_times_of_those_who_were_begun() -> None:
    """Half of all give up: the hundredth who was served came about as the two hundredth of all."""
    made = play(scenario("{kind: poisson, rate: 2}", more=", patience: 2s"), Path(), 0)
    came_s, waits_s = made.waits_s()
    assert len(came_s) == len(waits_s) < 0.7 * len(made)
    assert came_s[-1] > 580


def test_a_warm_up_that_is_given_counts() -> None:
    made = found(scenario(), replications=2, warm_up_s=100.0)
    assert made.warm_up_s == 100.0


@pytest.mark.parametrize(
    ("what", "given", "says"),
    [
        (scenario(), {"replications": 1}, "two replications at least"),
        (scenario(), {"warm_up_s": 600.0}, "the warm-up must end"),
        (scenario(more=", required_capabilities: [fly]"), {}, "jobs.classes.weld: no robot"),
        (scenario("{kind: trace, file: nowhere.csv}"), {}, "nowhere.csv cannot be read"),
    ],
)
def test_what_cannot_be_played_is_refused(what: Scenario, given: dict[str, Any], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        found(what, **given)
