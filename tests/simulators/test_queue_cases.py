"""Queues whose figures are known, and what the lab finds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from fleet.errors import Misuse
from simulators.queue import cases, fast, lab, production
from simulators.queue.cases import CASES, Case, Checked, checked
from simulators.queue.cli import queue_app
from simulators.queue.engines import Play
from simulators.queue.verify_cli import add_verify
from simulators.scenario import Scenario

PAGE = (Path(__file__).parents[2] / "docs" / "queue-cases.md").read_text()
BY_NAME = {case.name: case for case in CASES}


def wrong(found: list[Checked]) -> str:
    return "\n".join(
        f"{each.metric}: {each.found.estimate:g}, known {each.expected:g}, z {each.z:.2f}, off {each.off:.2%}"
        for each in found
        if not each.holds
    )


@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_known_is_found(name: str) -> None:
    """And by intervals that are narrow enough for a case to fail."""
    found = checked(BY_NAME[name])
    assert wrong(found) == ""
    assert max(each.wide for each in found) < 1.1 * BY_NAME[name].tolerance


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_known_is_found_whatever_the_seed(name: str, seed: int) -> None:
    assert wrong(checked(BY_NAME[name], seed)) == ""


def changed(name: str, **fields: Any) -> Case:
    case = BY_NAME[name]
    return Case(**{field: getattr(case, field) for field in case.__struct_fields__} | fields)


def test_a_queue_that_is_another_does_not_hold() -> None:
    """The judge can say no."""
    assert wrong(checked(changed("MM23-SIMMER", queue={"capacity": 4})))


def test_a_figure_that_the_lab_does_not_have_is_told() -> None:
    with pytest.raises(Misuse, match="no figure for Wz"):
        checked(changed("MM23-SIMMER", expected={"Wz": 1.0}))


# -- six jobs by Lindley's equation


@pytest.mark.parametrize("play", [fast.play, production.play])
@pytest.mark.parametrize(
    ("robots", "waits"), [(1, [0.0, 0.7, 1.25, 0.0, 0.0, 1.5]), (2, [0.0, 0.0, 0.45, 0.0, 0.0, 0.0])]
)
def test_six_jobs_of_a_trace(play: Play, robots: int, waits: list[float], tmp_path: Path) -> None:
    gaps, services = [1.0, 0.5, 0.25, 3.0, 0.5, 0.5], [1.2, 0.8, 1.5, 0.4, 2.0, 0.1]
    rows = zip(np.cumsum(gaps), services, strict=True)
    lines = ["at_s,service_s", *(f"{at_s},{service_s}" for at_s, service_s in rows)]
    (tmp_path / "six.csv").write_text("\n".join(lines))
    known = np.zeros((6, 4), np.int64)
    play(scenario({"kind": "trace", "file": "six.csv"}, robots), tmp_path, 1, told=known)
    assert (known[:, 3] / 1e9).tolist() == pytest.approx(waits, abs=1e-9)


def scenario(arrivals: dict[str, Any], robots: int = 1, lasts: str = "1 h") -> Scenario:
    return Scenario.model_validate(
        {
            "name": "known",
            "duration": lasts,
            "fleets": {"robots": {"count": robots, "heartbeats": {"interval": "60s"}}},
            "jobs": {
                "arrivals": arrivals,
                "classes": {"all": {"service": {"kind": "exponential", "mean": "1s"}}},
            },
        }
    )


# -- intervals


def held(runs: int) -> dict[str, float]:
    """How often the interval of 95 % holds what is known, over runs of M/M/2 at 0.7."""
    names = ("L", "Lq", "W", "Wq", "utilisation", "throughput", "P_wait")
    counts = dict.fromkeys(names, 0)
    queue = scenario({"kind": "poisson", "rate": 1.4}, robots=2, lasts="2h")
    for seed in range(runs):
        found = lab.run(queue.model_copy(update={"seed": seed}), Path(), 10, 600.0)
        for name in names:
            metric = found.metrics[name]
            assert metric.theory is not None
            counts[name] += metric.low <= metric.theory <= metric.high
    return {name: count / runs for name, count in counts.items()}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nineteen_of_twenty_intervals_hold_what_is_known() -> None:
    shares = held(1_000)
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


# -- the command


def test_the_command_tells_every_figure_and_what_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    app = queue_app(Console(file=told, width=140))
    add_verify(app, Console(file=told, width=140))
    monkeypatch.setattr(cases, "CASES", [BY_NAME["MM23-SIMMER"], BY_NAME["GAS-SIMMER"]])
    assert CliRunner().invoke(app, ["verify"]).exit_code == 0
    assert "all 9 figures of 2 queues hold" in told.getvalue()
    monkeypatch.setattr(cases, "BEYOND", 0.01)
    error = CliRunner().invoke(app, ["verify"]).exception
    assert isinstance(error, Misuse)
    assert "MM23-SIMMER P_block" in error.detail


def test_the_page_has_every_figure() -> None:
    for case in CASES:
        for value in case.expected.values():
            assert f"| {value:.6g} |" in PAGE, (case.name, value)
