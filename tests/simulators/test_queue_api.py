"""The queue lab from Python, as a notebook uses it."""

from __future__ import annotations

import contextlib
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

import simulators.queue
from fleet.errors import Misuse
from simulators.queue import (
    Comparison,
    Result,
    Scenario,
    SweepResult,
    compare,
    read_scenario,
    simulate,
    sweep,
)
from simulators.queue.experiment import Spread, in_turn

EXAMPLES = Path(__file__).parents[2] / "examples"
YARD: dict[str, Any] = {
    "name": "yard",
    "duration": "40s",
    "fleets": {"arms": {"count": 2, "heartbeats": {"interval": "60s"}}},
    "jobs": {
        "arrivals": {"kind": "poisson", "rate": 1},
        "classes": {"weld": {"service": {"kind": "exponential", "mean": "1s"}}},
    },
}


@pytest.fixture(scope="module")
def result() -> Result:
    return simulate(YARD, {"robots": 1, "load": 0.5}, replications=2)


@pytest.fixture(scope="module")
def swept() -> SweepResult:
    return sweep(YARD, over={"robots": range(1, 3), "load": [0.5, 0.8], "seed": [1, 2]}, replications=2)


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare(YARD, [{"robots": 1}, "robots=2", {"robots": 3}], replications=2)


def test_what_is_exported_is_there_and_nothing_else_is() -> None:
    assert {"Scenario", "simulate", "sweep", "compare"} <= set(dir(simulators.queue))
    with pytest.raises(AttributeError, match="no attribute 'simulte'"):
        simulators.queue.simulte  # noqa: B018


def test_a_scenario_is_a_file_a_dict_or_one_that_was_read(tmp_path: Path) -> None:
    file = tmp_path / "yard.yaml"
    file.write_text(json.dumps(YARD))
    sources = [YARD, file, str(file), read_scenario(file), Scenario.model_validate(YARD)]
    found = [simulate(source, replications=2).findings for source in sources]
    assert all(each == found[0] for each in found)


def test_a_trace_lies_beside_the_file_or_where_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("".join(f"{second}\n" for second in range(30)))
    traced = YARD | {"jobs": YARD["jobs"] | {"arrivals": {"kind": "trace", "file": "times.csv"}}}
    (tmp_path / "yard.yaml").write_text(json.dumps(traced))
    assert simulate(tmp_path / "yard.yaml", replications=2).findings.jobs == 60
    assert simulate(traced, replications=2, folder=tmp_path).findings.jobs == 60


def test_what_is_no_scenario_is_refused() -> None:
    with pytest.raises(Misuse, match="fleets: Input should be"):
        simulate(YARD | {"fleets": 3})
    with pytest.raises(Misuse, match="cannot be read"):
        simulate("nowhere.yaml")


def test_a_run_is_a_table_of_its_metrics(result: Result) -> None:
    frame = result.frame()
    assert frame.columns == ["metric", "estimate", "low", "high", "theory", "z"]
    assert frame.filter(metric="W")["theory"].to_list() == [2.0]
    assert json.loads(result.to_json())["metrics"]["W"]["theory"] == 2.0


def test_a_sweep_is_a_table_of_its_points(swept: SweepResult) -> None:
    frame = swept.frame()
    assert frame.columns[:4] == ["robots", "load", "seed", "metric"]
    assert frame.filter(metric="W").height == 8
    assert len(json.loads(swept.to_json())["points"]) == 8


def test_a_comparison_is_a_table_of_its_policies(compared: Comparison) -> None:
    assert compared.frame()["policy"].unique(maintain_order=True).to_list() == [
        "robots=1",
        "robots=2",
        "robots=3",
    ]
    assert json.loads(compared.to_json())["policies"] == ["robots=1", "robots=2", "robots=3"]


def test_a_notebook_shows_a_table_and_what_it_is_of(
    result: Result, swept: SweepResult, compared: Comparison
) -> None:
    for shown, says in ((result, "M/M/1"), (swept, "8 points"), (compared, "beside robots=1")):
        page = shown._repr_html_()
        assert says in page
        assert "<table" in page
        assert "utilisation" in page


def test_names_from_a_scenario_are_no_markup() -> None:
    made = compare(YARD, [{"robots": 1}, {"description": "<b>"}], replications=2)
    assert "&lt;b&gt;" in made._repr_html_()
    assert "<b>" not in made._repr_html_()


def test_pandas_gets_the_same_columns(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    assert result.pandas() == result.frame().to_dict(as_series=False)


def test_without_pandas_it_is_said_what_to_do(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Misuse, match="pip install pandas, or use frame"):
        result.pandas()


# -- charts


def values_of(chart: Any) -> list[dict[str, Any]]:
    """That it carries."""
    values: list[dict[str, Any]]
    [values] = chart.to_dict()["datasets"].values()
    return values


def drawn(chart: Any, tmp_path: Path) -> str:
    chart.save(str(tmp_path / "chart.svg"))
    return (tmp_path / "chart.svg").read_text()


def test_a_run_is_drawn_with_every_metric(result: Result, tmp_path: Path) -> None:
    assert values_of(result.plot()) == result.frame().to_dicts()
    assert "utilisation" in drawn(result.plot(), tmp_path)


def test_a_sweep_is_drawn_over_its_first_axis_in_colours_and_panels(
    swept: SweepResult, tmp_path: Path
) -> None:
    rows = [row for row in values_of(swept.plot()) if row["estimate"] is not None]
    wanted = swept.frame().filter(metric="W")
    assert [row["estimate"] for row in rows] == wanted["estimate"].to_list()
    assert [row["x"] for row in rows] == wanted["robots"].to_list()
    assert {(row["colour"], row["panel"]) for row in rows} == {
        (load, seed) for load in ("0.5", "0.8") for seed in ("seed=1", "seed=2")
    }
    picture = drawn(swept.plot(), tmp_path)
    for text in ("robots", "load", "seed=2", "W, seconds"):
        assert text in picture


def test_paths_and_words_are_drawn_as_they_are(tmp_path: Path) -> None:
    made = sweep(YARD, over={"jobs.classes.weld.service.mean": ["500ms", "1s"]}, replications=2)
    picture = drawn(made.plot("utilisation"), tmp_path)
    assert "jobs.classes.weld.service.mean" in picture
    assert "500ms" in picture


def test_a_metric_that_is_not_there_cannot_be_drawn(swept: SweepResult) -> None:
    with pytest.raises(Misuse, match="no metric Wait in this sweep; there is L, Lq"):
        swept.plot("Wait")


def test_a_comparison_is_drawn_as_differences(compared: Comparison, tmp_path: Path) -> None:
    rows = values_of(compared.plot())
    assert {row["policy"] for row in rows} == {"robots=2", "robots=3"}
    assert "robots=3" in drawn(compared.plot(), tmp_path)


# -- kept, and over processes


def test_a_sweep_that_is_kept_is_read_the_second_time(tmp_path: Path) -> None:
    over = {"load": [0.5, 0.8]}
    heard: list[int] = []
    first = sweep(YARD, over, replications=2, results=tmp_path / "kept", tell=heard.append)
    again = sweep(YARD, over, replications=2, results=tmp_path / "kept", tell=heard.append)
    assert heard == [0, 1, 2, 2]
    assert again.points == first.points
    assert pl.read_parquet(tmp_path / "kept" / "points.parquet").equals(first.frame())


def test_several_processes_are_those_of_the_workers() -> None:
    asked = []

    @contextlib.contextmanager
    def workers(processes: int | None, address: str | None) -> Iterator[Spread]:
        asked.append((processes, address))
        yield in_turn

    made = sweep(YARD, {"load": [0.5, 0.8]}, replications=2, processes=3, workers=workers)
    assert (asked, len(made.points)) == ([(3, None)], 2)
    with pytest.raises(Misuse, match=r"workers=fleetcast\.workers"):
        sweep(YARD, {"load": [0.5, 0.8]}, processes=3)
    with pytest.raises(Misuse, match="a process at least"):
        sweep(YARD, {"load": [0.5, 0.8]}, processes=0)


def test_the_example_answers_its_three_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["queue_lab.py", "--minutes", "8", "--replications", "4", "--into", str(tmp_path / "lab")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / "queue_lab.py"), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("robots: Wq") >= 1
    made = {path.name for path in (tmp_path / "lab").iterdir()}
    assert {"load.svg", "load.parquet", "policies.svg", "load-sweep"} <= made
