"""The commands of `fleetcast load`, with runs that cost nothing."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from simulators_made import performance
from typer.testing import CliRunner

from fleet.errors import Misuse, Unavailable
from simulators.load import outcome, results
from simulators.load.cli import Where, load_app
from simulators.load.outcome import Outcome
from simulators.load.venue import Venue
from simulators.scenario import Scenario

SCENARIO = """\
name: yard
duration: 10s
fleets:
  a: {count: 100, heartbeats: {interval: 1s}}
thresholds: {events_lost: 0}
"""


class Bench:
    """Fleets of up to `limit` robots are fast enough."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.limit = 450
        self.complete = True
        self.ran: list[tuple[int, float]] = []
        self.wheres: list[Where] = []
        self.told = io.StringIO()
        self.file = folder / "yard.yaml"
        self.file.write_text(SCENARIO)
        monkeypatch.setattr("simulators.load.command.run", self._run)
        self._app = load_app(self._set_up, asyncio.run, Console(file=self.told, width=200), "0.0.0-test")

    @contextlib.contextmanager
    def _set_up(self, where: Where, plan: Scenario) -> Iterator[Venue]:
        self.wheres.append(where)
        yield Venue("http://x", "token", lambda *args: None, lambda *args: [])

    async def _run(self, scenario: Scenario, *rest: Any) -> Outcome:
        self.ran.append((scenario.robots, scenario.lasts_s))
        measured = {"events_lost": 0.0, "life_p99": 10.0 if scenario.robots <= self.limit else 1_000.0}
        verdicts = outcome.verdicts(scenario, measured)
        reasons = [] if self.complete else ["it was interrupted"]
        made = performance(thresholds=verdicts, complete=self.complete, incomplete_because=reasons)
        return made.outcome

    def __call__(self, *words: str) -> int:
        result = CliRunner().invoke(self._app, list(words))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path)


def test_a_file_alone_is_run_as_it_is(bench: Bench) -> None:
    assert bench(str(bench.file)) == 0
    assert bench("run", str(bench.file)) == 0
    assert bench("--serve", str(bench.file), "--robots", "7", "--duration", "3s") == 0
    assert bench.ran == [(100, 10.0), (100, 10.0), (7, 3.0)]
    assert [where.serve for where in bench.wheres] == [False, False, True]


def test_the_largest_fleet_is_found_and_every_try_is_shown(bench: Bench) -> None:
    assert bench("find-limit", str(bench.file), "--slo", "life_p99 < 100ms", "--slo", "events_lost 0") == 0
    assert [robots for robots, _ in bench.ran] == [100, 200, 400, 800, 566, 476, 436]
    assert {lasts_s for _, lasts_s in bench.ran} == {30.0}
    assert "436 robots meet it, 476 do not" in bench.told.getvalue()


def test_no_fleet_that_meets_it_is_said_and_ends_with_1(bench: Bench) -> None:
    bench.limit = 0
    assert bench("find-limit", str(bench.file), "--slo", "life_p99 < 100ms") == 1
    assert "no fleet was small enough" in bench.told.getvalue()
    bench.limit = 10**6
    assert bench("find-limit", str(bench.file), "--slo", "life_p99 < 100ms", "--most", "300") == 0
    assert "300 robots meet it, and more were not tried" in bench.told.getvalue()


def test_a_search_that_is_interrupted_ends(bench: Bench) -> None:
    bench.complete = False
    with pytest.raises(Unavailable, match="the search ended early: it was interrupted"):
        bench("find-limit", str(bench.file), "--slo", "life_p99 < 100ms")
    assert len(bench.ran) == 1


@pytest.mark.parametrize(
    ("slo", "says"),
    [
        ("life_p99", "an objective is a metric and a comparison"),
        ("life_p99 < 5", "this is in ms"),
        ("lfe_p99 < 5ms", "there is no such metric; there is life_p99"),
        ("life_p99 ~ 5ms", "a threshold is a number, or a comparison"),
    ],
)
def test_an_objective_that_is_none_is_refused(bench: Bench, slo: str, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        bench("find-limit", str(bench.file), "--slo", slo)


def test_two_results_are_put_side_by_side(bench: Bench, tmp_path: Path) -> None:
    one = performance()
    seconds = one.seconds.with_columns(p99_ms=one.seconds["p99_ms"] * 3)
    other = msgspec.structs.replace(
        performance(valid=False, invalid_because=["the generator was late"]), seconds=seconds
    )
    for name, made in (("a", one), ("b", other)):
        (tmp_path / name).mkdir()
        results.write(tmp_path / name, made, lambda _: "")
    assert bench("compare", str(tmp_path / "a"), str(tmp_path / "b")) == 0
    told = bench.told.getvalue()
    [line] = [line for line in told.splitlines() if "p99 of a second" in line]
    assert "200.0 (" in line
    assert "differs" in line
    assert "b is no valid result: the generator was late" in told
