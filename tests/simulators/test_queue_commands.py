"""`fleetcast queue sweep` and `fleetcast queue compare`, as people and programs read them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import fleetcast
from fleet.errors import Misuse, Unavailable
from simulators.queue.compare_cli import add_compare
from simulators.queue.experiment import Spread, in_turn
from simulators.queue.sweep_cli import add_sweep

SCENARIO = """\
name: yard
duration: 40s
fleets:
  arms: {count: 2, heartbeats: {interval: 60s}}
jobs:
  arrivals: {kind: poisson, rate: 1}
  classes:
    weld: {service: {kind: exponential, mean: 1s}}
"""
OVER = ("--over", "robots=1:2:1", "--over", "load=0.5,0.8", "--replications", "2")


class Bench:
    """`breaks_after` so many points somebody presses Ctrl-C, in a sweep over several processes."""

    def __init__(self, folder: Path) -> None:
        self.told = io.StringIO()
        self.folder = folder
        self.file = folder / "yard.yaml"
        self.file.write_text(SCENARIO)
        self.asked: list[tuple[int | None, str | None]] = []
        self.breaks_after: int | None = None
        self._app = typer.Typer()
        add_sweep(self._app, Console(file=self.told, width=100), self._workers, "1")
        add_compare(self._app, Console(file=self.told, width=100))

    @contextlib.contextmanager
    def _workers(self, processes: int | None, address: str | None) -> Iterator[Spread]:
        self.asked.append((processes, address))
        yield self._spread

    def _spread(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        yield from in_turn(function, items[: self.breaks_after])
        if self.breaks_after is not None:
            raise KeyboardInterrupt

    def __call__(self, command: str, *words: str) -> str:
        """What it printed."""
        self.told.truncate(self.told.seek(0))
        done = CliRunner().invoke(self._app, [command, str(self.file), *words])
        if done.exception is not None:
            raise done.exception
        return str(done.stdout) + self.told.getvalue()

    def sweep(self, *words: str) -> str:
        return self("sweep", *OVER, "--results", str(self.folder / "kept"), *words)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# -- sweep


def test_people_get_a_row_for_each_point_and_are_told_where_the_rest_is(bench: Bench) -> None:
    told = bench.sweep("--processes", "1")
    assert "yard: 4 points, 2 times each" in told
    assert "│ robots │ load │" in told.replace("┃", "│").replace("  ", " ").replace("  ", " ")
    assert sum(line.startswith("│") for line in told.splitlines()) == 4
    assert f"results in {bench.folder / 'kept'}" in told
    assert pl.read_parquet(bench.folder / "kept" / "points.parquet")["robots"].unique().to_list() == [1, 2]
    assert bench.asked == []


def test_programs_get_one_object(bench: Bench) -> None:
    found = json.loads(bench.sweep("--processes", "1", "--json", "--seed", "5"))
    assert (found["seed"], found["replications"]) == (5, 2)
    assert found["axes"] == {"robots": [1, 2], "load": [0.5, 0.8]}
    assert [point["changes"] for point in found["points"]][1] == {"robots": 1, "load": 0.8}
    assert set(found["points"][0]["findings"]["metrics"]["W"]) == {"estimate", "low", "high", "theory", "z"}


def test_processes_and_cluster_are_asked_for_where_there_is_more_than_one_point(bench: Bench) -> None:
    bench.sweep("--processes", "3")
    assert bench.asked == [(3, None)]
    bench.sweep()  # all is there already
    assert bench.asked == [(3, None)]
    bench("sweep", *OVER, "--results", str(bench.folder / "other"), "--address", "x:1")
    assert bench.asked[1:] == [(None, "x:1")]


def test_who_interrupts_a_sweep_is_told_how_to_go_on_and_can(bench: Bench) -> None:
    bench.breaks_after = 3
    with pytest.raises(Unavailable) as error:
        bench.sweep()
    kept = bench.folder / "kept"
    assert error.value.detail == (
        f"stopped with 3 of 4 points done; the same command with --results {kept} goes on from there"
    )
    bench.sweep()
    bench("sweep", *OVER, "--results", str(bench.folder / "whole"), "--processes", "1")
    written = [(folder / "points.parquet").read_bytes() for folder in (kept, bench.folder / "whole")]
    assert written[0] == written[1]


def test_a_load_that_is_too_much_is_played_with_a_warning(bench: Bench) -> None:
    results = str(bench.folder / "kept")
    told = bench("sweep", "--over", "load=0.5,1.5", "--results", results, "--processes", "1")
    assert "WARNING: load=1.5: the load is 1.5" in told
    assert "WARNING: load=0.5: the load" not in told


def test_results_go_into_a_folder_of_their_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.folder)
    bench("sweep", "--over", "load=0.5", "--replications", "2")
    [folder] = (bench.folder / "results").iterdir()
    assert folder.name.startswith("yard-20")
    assert (folder / "points.parquet").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--over", "robots=1:2:0"], "no step of 0"),
        (["--over", "speed=1,2"], "speed=1: speed: there is no 'speed' here"),
        (["--over", "load=nan"], "load=nan"),
        (["--over", "load=0.5", "--warm-up", "1"], "--warm-up: a duration is"),
    ],
)
def test_bad_words_are_refused_and_leave_nothing_behind(bench: Bench, words: list[str], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        bench("sweep", *words, "--results", str(bench.folder / "kept"))
    assert not (bench.folder / "kept").exists()


# -- compare

POLICIES = ("--policy", "robots=2", "--policy", "robots=3", "--replications", "4", "--warm-up", "0s")


def test_people_see_each_policy_and_its_difference_from_the_first(bench: Bench) -> None:
    told = bench("compare", *POLICIES)
    assert "yard: 4 times, on the same random numbers" in told
    assert "differences are from robots=2" in told
    lines = [line.split("│")[1:-1] for line in told.splitlines() if line.startswith("│ utilisation")]
    [[_, policy, _, difference, verdict]] = lines
    assert (policy.strip(), difference.strip(), verdict.strip()) == ("robots=2", "", "")
    [changed] = [line for line in told.splitlines() if "robots=3" in line and " -0.1" in line][:1]
    assert "differs" in changed


def test_programs_get_differences_with_their_intervals(bench: Bench) -> None:
    found = json.loads(bench("compare", *POLICIES, "--json"))
    assert found["policies"] == ["robots=2", "robots=3"]
    first, second = found["metrics"]["utilisation"]
    assert first["difference"] is None
    assert set(second["difference"]) == {"estimate", "low", "high", "clear"}
    assert second["difference"]["clear"]


def test_one_policy_is_none_to_compare(bench: Bench) -> None:
    with pytest.raises(Misuse, match="two policies at least"):
        bench("compare", "--policy", "fifo")


# -- the front door


def test_the_front_door_has_both_commands(bench: Bench) -> None:
    sweep = ["sweep", str(bench.file), *OVER, "--processes", "1", "--results", str(bench.folder / "kept")]
    for words in (sweep, ["compare", str(bench.file), *POLICIES]):
        done = CliRunner().invoke(fleetcast.app, ["queue", *words, "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["name"] == "yard"
