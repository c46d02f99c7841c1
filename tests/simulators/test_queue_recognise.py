"""What is called a queue of the textbooks is one: what is known of it is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fleet.errors import Misuse
from simulators.queue import lab
from simulators.queue.lab import Findings
from simulators.queue.recognise import recognised
from simulators.queue.theory import Unstable
from simulators.scenario import Scenario

Part = dict[str, Any]
ONE = {"kind": "exponential", "mean": "1s"}


def scenario(arrivals: Part, classes: Part, robots: int = 1, lasts: str = "40h", **more: Any) -> Scenario:
    fleet = {"count": robots, "heartbeats": {"interval": "60s"}} | more.pop("fleet", {})
    return Scenario.model_validate(
        {
            "name": "known",
            "duration": lasts,
            "fleets": {"robots": fleet},
            "jobs": {"arrivals": arrivals, "classes": classes},
        }
        | more
    )


def poisson(rate: float) -> Part:
    return {"kind": "poisson", "rate": rate}


def assert_known(made: Findings, model: str) -> None:
    assert made.model == model
    judged = {name: each.z for name, each in made.metrics.items() if each.z is not None} | {
        f"{name}.{metric}": each.z
        for name, metrics in made.classes.items()
        for metric, each in metrics.items()
        if each.z is not None
    }
    assert len(judged) > 4
    assert all(abs(z) < 4.5 for z in judged.values()), judged


def exponential(mean: str, **more: Any) -> Part:
    return {"service": {"kind": "exponential", "mean": mean}} | more


@pytest.mark.parametrize(
    ("what", "model"),
    [
        (
            scenario(
                poisson(0.7),
                {
                    "top": exponential("1s", priority=0, weight=4.0),
                    "short": exponential("100ms", priority=5, weight=0.5),
                    "long": exponential("3s", priority=5, weight=0.5),
                },
                queue={"discipline": "preemptive"},
            ),
            "M/G/1 with priorities that interrupt",
        ),
        (
            scenario(
                poisson(2.4),
                {"a": exponential("1s", priority=1), "b": exponential("1s", priority=2, weight=2.0)},
                robots=3,
                queue={"discipline": "priority"},
            ),
            "M/M/3 with priorities that do not interrupt",
        ),
        (
            scenario(
                poisson(0.5),
                {
                    "a": {"service": {"kind": "constant", "value": "0s"}, "priority": 1},
                    "b": exponential("1s", priority=2),
                },
                queue={"discipline": "priority"},
            ),
            "M/G/1 with priorities that do not interrupt",
        ),
        (
            scenario(
                poisson(3.0),
                {"a": exponential("1s")},
                robots=2,
                queue={"balking": {"kind": "table", "probabilities": [1.0, 0.9, 0.5]}},
            ),
            "M/M/2, with balking",
        ),
        (
            scenario(
                {"kind": "renewal", "between": {"kind": "uniform", "low": "500ms", "high": "2s"}},
                {"a": exponential("1s")},
            ),
            "GI/M/1",
        ),
        (
            scenario(
                {"kind": "closed", "users": 6, "think": {"kind": "exponential", "mean": "3s"}},
                {"a": exponential("2s")},
                fleet={"speed": 2.0, "max_concurrent_jobs": 2},
            ),
            "M/M/2//6",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_known_of_a_queue_is_found(what: Scenario, model: str) -> None:
    assert_known(lab.run(what, Path(), 20), model)


def balking(*probabilities: float) -> Part:
    return {"balking": {"kind": "table", "probabilities": list(probabilities)}}


def test_a_queue_that_nobody_enters_is_none() -> None:
    shut = scenario(poisson(1.0), {"a": exponential("1s")}, lasts="1h", queue=balking(0.0))
    made = lab.run(shut, Path(), 2)
    assert made.model == ""
    assert made.metrics["P_balk"].estimate == 1.0


def test_who_joins_a_long_line_decides_whether_it_grows_for_ever() -> None:
    with pytest.raises(Unstable, match="however many jobs are there"):
        recognised(scenario(poisson(2.0), {"a": exponential("1s")}, queue=balking(0.1, 1.0)))
    known = recognised(scenario(poisson(2.0), {"a": exponential("1s")}, queue=balking(1.0, 0.4)))
    assert known is not None


@pytest.mark.parametrize(
    "what",
    [
        scenario(poisson(0.5), {"a": exponential("1s")}, fleet={"failure_probability": 0.1}),
        scenario(poisson(0.5), {"a": exponential("1s", patience="1s"), "b": exponential("1s")}),
        scenario(poisson(0.5), {"a": exponential("1s")}, queue={"capacity": 1}, robots=2),
        scenario(
            poisson(0.5), {"a": exponential("1s", priority=1), "b": exponential("1s", priority=2)}
        ),  # grows with waiting
        scenario(
            poisson(0.5),
            {"a": exponential("1s")},
            fleet={"breakdowns": {"up": ONE, "repair": ONE, "counts": "always"}},
        ),
    ],
)
def test_what_is_no_queue_of_the_textbooks_is_not_called_one(what: Scenario) -> None:
    assert recognised(what) is None


def test_a_scenario_of_a_century_is_refused() -> None:
    long = scenario(poisson(0.5), {"a": exponential("1s")}).model_dump() | {
        "duration": None,
        "stages": [{"kind": "hold", "lasts": "365d"}] * 100,
    }
    with pytest.raises(Misuse, match="70 years at most"):
        lab.run(Scenario.model_validate(long), Path())


NONE = {"kind": "constant", "value": "0s"}
WELD = {"weld": exponential("1s")}


@pytest.mark.parametrize(
    ("arrivals", "fleet", "where"),
    [
        (poisson(1.0), {"breakdowns": {"up": NONE, "repair": ONE}}, "breakdowns.up"),
        (poisson(1.0), {"breakdowns": {"up": ONE, "repair": NONE}}, "breakdowns.repair"),
        (
            poisson(1.0),
            {"breakdowns": {"up": ONE, "repair": ONE}, "max_concurrent_jobs": 2},
            "one job at a time",
        ),
        ({"kind": "closed", "users": 2, "think": NONE}, {}, "think"),
        ({"kind": "renewal", "between": {"kind": "constant", "value": "0.0000001ms"}}, {}, "between"),
        ({"kind": "mmpp", "rates": [1.0, 2.0], "mean_stays": ["1s", "0.001ms"]}, {}, "mean_stays"),
        (poisson(float("nan")), {}, "rate"),
        (poisson(-1.0), {}, "rate"),
    ],
)
def test_what_would_never_end_or_is_no_number_is_refused(arrivals: Part, fleet: Part, where: str) -> None:
    """Time must go on."""
    with pytest.raises(ValidationError, match=where):
        scenario(arrivals, WELD, fleet=fleet)


def test_more_breakdowns_than_anybody_waits_for_are_refused() -> None:
    often = {"kind": "constant", "value": "0.001ms"}
    restless = scenario(poisson(1.0), WELD, fleet={"breakdowns": {"up": often, "repair": often}})
    with pytest.raises(Misuse, match="let it end earlier"):
        lab.run(restless, Path())
