"""Replications of scenarios, beside theory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleet.errors import Misuse
from simulators.job_stream import arrivals_of
from simulators.queue import fast, lab, theory
from simulators.queue.engines import seed_of
from simulators.scenario import Queue, Scenario
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
        (scenario(lasts="10 h"), "M/M/1"),
        (scenario("{kind: poisson, rate: 2}", robots=4, lasts="10 h"), "M/M/4"),
        (scenario(service="{kind: constant, value: 1s}", lasts="10 h"), "M/G/1"),
        (scenario("{kind: constant, rate: 0.7}", lasts="10 h"), "GI/M/1"),
    ],
)
def test_the_fleet_is_the_queue_that_it_should_be(what: Scenario, model: str) -> None:
    made = found(what, replications=20)
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
        scenario("{kind: batches, rate: 0.1, smallest: 1, largest: 3}", robots=2),
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


def test_more_jobs_than_there_is_room_for_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "MAX_THERE", 1_000)
    for discipline in ("lifo", "random"):
        endless = scenario("{kind: poisson, rate: 90}").model_copy(
            update={"queue": Queue(discipline=discipline)}
        )
        with pytest.raises(Misuse, match="this queue grows and grows"):
            found(endless)


@pytest.mark.parametrize("discipline", ["fifo", "lifo", "random"])
@pytest.mark.parametrize("speed", [1.0, 0.001])
def test_times_beyond_all_numbers_do_no_harm(discipline: Any, speed: float) -> None:
    """Nobody may come before the end, and whoever works may never be done."""
    endless = scenario("{kind: poisson, rate: 0.00000000001}", robots=2)
    changed = endless.model_copy(update={"queue": Queue(discipline=discipline)})
    assert found(changed, replications=2).jobs == 0
    slow = endless.fleets["robots"].model_copy(update={"speed": speed})
    busy = scenario("{kind: poisson, rate: 1}", robots=2).model_copy(
        update={"queue": Queue(discipline=discipline), "fleets": {"robots": slow}}
    )
    assert found(busy, replications=2).metrics["utilisation"].estimate > (0.4 if speed == 1 else 0.9)


def test_the_same_seed_gives_the_same_figures_and_replications_are_independent() -> None:
    assert found(scenario(), replications=2) == found(scenario(), replications=2)
    other = scenario().model_copy(update={"seed": 8})
    assert found(scenario(), replications=2).metrics != found(other, replications=2).metrics
    assert len({seed_of(1, replication) for replication in range(100)}) == 100
    values = lab.samples(scenario(), Path(), replications=5).values
    assert len({each["Wq"] for each in values}) == 5


def test_users_who_think_at_random_come_when_they_are_due() -> None:
    """Each thinks for 4 s and is served for 1 s, on average: the machine repair problem, with users for
    robots that break, and a robot that mends."""
    closed = "{kind: closed, users: 5, think: {kind: exponential, mean: 4s}}"
    made = found(scenario(closed, lasts="20 min"), replications=6, warm_up_s=60.0)
    truth = theory.machine_repair(5, failure_rate=1 / 4, repair_rate=1.0, repairers=1)
    for name in ("L", "Lq", "W", "Wq", "throughput", "utilisation"):
        assert made.metrics[name].estimate == pytest.approx(getattr(truth, name), rel=0.1), name


def test_the_jobs_of_the_first_replication_are_those_of_a_load_test() -> None:
    plan = scenario()
    assert plan.jobs is not None
    submitted = list(arrivals_of(plan.jobs, plan.load, plan.seed, Path()).due(600.0))
    told = np.full((len(submitted), 4), -1)
    fast.play(plan, Path(), seed_of(plan.seed, 0), told=told)
    done = told[:, 1] > 0
    took_s = (told[:, 1] - told[:, 0])[done] / 1e9
    assert took_s.tolist() == pytest.approx(
        [each.body["payload"]["service_s"] for each, there in zip(submitted, done, strict=True) if there]
    )
    begin_s = (told[:, 0] - told[:, 3])[done] / 1e9
    assert begin_s.tolist() == pytest.approx(
        [each.at_s for each, there in zip(submitted, done, strict=True) if there]
    )


def test_a_warm_up_that_is_given_counts() -> None:
    made = found(scenario(), replications=2, warm_up_s=100.0)
    assert made.warm_up_s == 100.0
    assert made.metrics["L"] != found(scenario(), replications=2, warm_up_s=0.0).metrics["L"]


def test_the_beginning_of_a_queue_that_fills_slowly_is_found_and_left_out() -> None:
    """A hundred robots work for a minute at a time: at the beginning nobody is there."""
    slow = scenario("{kind: poisson, rate: 0.5}", "{kind: erlang, phases: 50, mean: 60s}", 100, "2h")
    made = found(slow, replications=10)
    assert 30 < made.warm_up_s < 1_800
    assert made.metrics["L"].estimate == pytest.approx(30, rel=0.02)
    assert found(slow, replications=10, warm_up_s=0.0).metrics["L"].estimate < 29.9


def test_a_precision_that_is_asked_for_is_reached() -> None:
    made = found(scenario(lasts="5h"), replications=3, precision=0.01)
    assert made.replications > 3
    for name in ("L", "W"):
        metric = made.metrics[name]
        assert metric.high - metric.low <= 0.02 * metric.estimate
        assert metric.estimate == pytest.approx({"L": 1.0, "W": 2.0}[name], rel=0.02)


def test_a_precision_that_is_out_of_reach_is_given_up_with_a_word() -> None:
    made = found(scenario(), replications=3, precision=1e-6)
    assert made.replications < 20
    assert "are the most: let it last longer" in made.warnings[0]


def test_one_long_replication_is_taken_apart_in_time() -> None:
    """Forty of them: most of their intervals hold what is known."""
    held = 0
    for seed in range(40):
        long = scenario("{kind: poisson, rate: 0.6}", lasts="30h").model_copy(update={"seed": seed})
        made = found(long, replications=1, warm_up_s=600.0)
        metric = made.metrics["Lq"]
        assert metric.low < metric.estimate < metric.high < 2 * metric.estimate
        assert metric.theory is not None
        held += metric.low <= metric.theory <= metric.high
    assert held >= 34
    assert "Wq_p95" not in made.metrics


def test_a_long_replication_weighs_its_jobs_and_not_its_hundredths() -> None:
    """Bursts: most jobs wait in a few hundredths of the time."""
    bursts = scenario("{kind: mmpp, rates: [0.2, 3.0], mean_stays: [300s, 30s]}", lasts="20000s")
    several = [bursts.model_copy(update={"seed": seed}) for seed in range(10)]
    for each in several:
        [whole] = lab.samples(each, Path(), replications=1, warm_up_s=0.0).values
        assert found(each, replications=1, warm_up_s=0.0).metrics["W"].estimate == pytest.approx(
            whole["W"], rel=0.05
        )


def test_jobs_that_are_the_same_each_time_are_told(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text("at_s,service_s\n" + "".join(f"{at},0.5\n" for at in range(1, 500)))
    made = lab.run(scenario("{kind: trace, file: day.csv}"), tmp_path, 3)
    assert "all replications are alike" in made.warnings[0]


def test_what_differs_by_rounding_only_is_not_judged() -> None:
    made = found(scenario("{kind: renewal, between: {kind: constant, value: 50s}}"), replications=3)
    assert made.metrics["throughput"].z is None


def test_patience_of_more_than_a_year_is_a_year_in_production() -> None:
    more = ", patience: {kind: exponential, mean: 365d}"
    made = found(scenario(more=more), replications=2, engine="production")
    assert made.metrics["P_abandon"].estimate == 0


def test_a_level_worth_half_a_millisecond_is_not_productions() -> None:
    finely = scenario().model_copy(update={"queue": Queue(aging="0.5ms")})
    with pytest.raises(Misuse, match="parts of a millisecond"):
        found(finely, engine="production")


@pytest.mark.parametrize("engine", ["fast", "plain", "production"])
def test_nobody_comes_at_the_very_end(engine: Any) -> None:
    """A user thinks for 2 s and is served for 1: at 2, 5, 8, and not at 11."""
    closed = "{kind: closed, users: 1, think: {kind: constant, value: 2s}}"
    made = found(scenario(closed, "{kind: constant, value: 1s}", lasts="11s"), replications=2, engine=engine)
    assert made.jobs == 6


def test_classes_and_robots_have_figures_of_their_own() -> None:
    more = "}\n    paint: {service: {kind: exponential, mean: 500ms}, weight: 3, priority: 1"
    two = scenario("{kind: poisson, rate: 1}", more=f", priority: 5{more}", robots=2, lasts="5h")
    made = found(two.model_copy(update={"queue": Queue(discipline="priority")}), replications=4)
    weld, paint = made.classes["weld"], made.classes["paint"]
    assert weld["Wq"].estimate > 1.2 * paint["Wq"].estimate
    assert paint["throughput"].estimate == pytest.approx(0.75, rel=0.03)
    both = weld["L"].estimate + paint["L"].estimate
    assert both == pytest.approx(made.metrics["L"].estimate)
    busy = made.of_robots.utilisation
    assert len(busy) == 2
    assert sum(busy) / 2 == pytest.approx(made.metrics["utilisation"].estimate, rel=0.02)
    assert sum(made.of_robots.jobs) == pytest.approx(made.jobs / 4, rel=0.01)


def test_curves_say_how_long_jobs_wait_and_how_the_line_grows() -> None:
    made = found(scenario("{kind: poisson, rate: 1.2}", lasts="1h"), replications=4, warm_up_s=0.0)
    waits = dict(zip(made.curves.shares, made.curves.waits, strict=True))
    assert waits[0.5] == pytest.approx(made.metrics["Wq_p50"].estimate)
    assert sorted(made.curves.stays) == made.curves.stays
    assert len(made.curves.in_line) == 100
    assert made.curves.in_line[90] > 4 * made.curves.in_line[10]


@pytest.mark.parametrize(
    ("queue", "says"),
    [({"discipline": "lifo"}, "does not play queue.discipline"), ({"capacity": 3}, "play queue.capacity")],
)
def test_an_engine_that_does_not_know_the_rule_says_so(queue: dict[str, Any], says: str) -> None:
    other = scenario().model_copy(update={"queue": Queue(**queue)})
    with pytest.raises(Misuse, match=f"production .*{says}"):
        found(other, engine="production")
    assert found(other, replications=2).jobs > 0


def test_robots_that_are_killed_are_missed_until_they_are_back() -> None:
    text = QUEUE.format(
        lasts="10 min", robots=4, arrivals="{kind: poisson, rate: 2}",
        service="{kind: exponential, mean: 1s}", more="",
    ) + "faults:\n  - {kind: kill_robots, at: 120s, fleet: robots, share: 0.5, lasts: 120s}\n"  # fmt: skip
    made = found(scenario_of(text.encode(), "q"), replications=4, warm_up_s=0.0)
    line = made.curves.in_line
    assert made.model == ""
    assert max(line[:20]) < 5 < max(line[20:45]) / 2  # two robots are no match for two jobs a second
    assert max(line[70:]) < 10


def test_faults_of_the_server_are_not_played() -> None:
    text = QUEUE.format(
        lasts="10 min", robots=4, arrivals="{kind: poisson, rate: 2}",
        service="{kind: exponential, mean: 1s}", more="",
    ) + "faults:\n  - {kind: kill_actor, at: 120s, actor: registry}\n"  # fmt: skip
    with pytest.raises(Misuse, match="only robots are killed"):
        found(scenario_of(text.encode(), "q"))


def test_what_no_engine_plays_as_a_whole_is_refused() -> None:
    other = scenario(more=", timeout: 5s").model_copy(update={"queue": Queue(discipline="lifo")})
    with pytest.raises(Misuse, match=r"fast does not play jobs\.classes\.weld\.timeout; production does not"):
        found(other)


@pytest.mark.parametrize(
    ("what", "given", "says"),
    [
        (scenario(), {"replications": 0}, "one replication at least"),
        (scenario(), {"replications": 1, "precision": 0.1}, "two for a precision"),
        (scenario(), {"warm_up_s": 600.0}, "the warm-up must end"),
        (scenario(), {"precision": 0.0}, "a precision is a share"),
        (scenario("{kind: poisson, rate: 1000000}", lasts="10 d"), {}, "let it end earlier"),
        (scenario(more=", required_capabilities: [fly]"), {}, "jobs.classes.weld: no robot"),
        (scenario("{kind: trace, file: nowhere.csv}"), {}, "nowhere.csv cannot be read"),
    ],
)
def test_what_cannot_be_played_is_refused(what: Scenario, given: dict[str, Any], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        found(what, **given)
