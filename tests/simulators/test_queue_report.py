"""What is kept of the queue lab's work: tables, a summary, and a report for people."""

from __future__ import annotations

import html
import io
import json
import re
import shlex
from contextlib import nullcontext
from html.parser import HTMLParser
from math import exp
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from fleet.errors import Misuse, Unavailable
from simulators.queue import charts, simulate
from simulators.queue.cli import queue_app
from simulators.queue.compare_cli import add_compare
from simulators.queue.experiment import Sweep, in_turn
from simulators.queue.frames import CURVES, ROBOTS, curves_of
from simulators.queue.grid import grid_of
from simulators.queue.notebook import Result
from simulators.queue.sweep_cli import add_sweep
from simulators.queue.sweep_theory import theory_between
from simulators.scenario import Scenario

EVIL = "</script><script>alert(1)</script>"
YARD: dict[str, Any] = {
    "name": "yard",
    "description": EVIL,
    "seed": 3,
    "duration": "2 min",
    "fleets": {"arms": {"count": 2, "heartbeats": {"interval": "60s"}}},
    "jobs": {
        "arrivals": {"kind": "poisson", "rate": 1},
        "classes": {
            "weld": {"service": {"kind": "exponential", "mean": "1s"}},
            "carry": {"service": {"kind": "exponential", "mean": "1s"}},
        },
    },
}
RUN = {"metrics.parquet", "robots.parquet", "curves.parquet", "summary.json", "report.html"}


class Bench:
    """`printed` is what the last command said to programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "yard.yaml"
        self.file.write_text(json.dumps(YARD))
        out = Console(file=io.StringIO(), width=100)
        self._app: typer.Typer = queue_app(out)
        add_sweep(self._app, out, lambda processes, address: nullcontext(in_turn), "1")
        add_compare(self._app, out)

    def __call__(self, command: str, *words: str) -> Path:
        """The folder of the results."""
        results = self.folder / command
        words = (str(self.file), "--json", "--replications", "2", "--results", str(results), *words)
        done = CliRunner().invoke(self._app, [command, *words])
        if done.exception is not None:
            raise done.exception
        self.printed: dict[str, Any] = json.loads(done.stdout)
        return results

    def run(self, *words: str) -> Path:
        return self("run", "--warm-up", "10s", *words)

    def sweep(self) -> Path:
        return self("sweep", "--over", "load=0.5,0.9", "--over", "robots=1,2", "--warm-up", "10s")

    def compare(self) -> Path:
        return self("compare", "--policy", "robots=2", "--policy", "robots=3,description=<b>")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Page(HTMLParser):
    """What a browser would make of it: `words` to be read, `addresses` to be fetched, `scripts`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str | None] = []
        self.words: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.scripts += tag == "script"
        self.addresses += [value for name, value in attrs if name in ("src", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def sources(self) -> list[str]:
        """The command, and the scenario."""
        return [word for word in self.words if word.startswith(("fleetcast queue", "name:"))]


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


# -- tables


def test_a_run_leaves_tables_a_summary_and_a_report(bench: Bench) -> None:
    folder = bench.run()
    assert {path.name for path in folder.iterdir()} == RUN
    assert json.loads((folder / "summary.json").read_bytes()) == bench.printed


def test_tables_say_what_programs_are_told(bench: Bench) -> None:
    folder, told = bench.run(), bench.printed
    metrics = pl.read_parquet(folder / "metrics.parquet")
    for name, of in {"": told["metrics"], **told["classes"]}.items():
        rows = metrics.filter(pl.col("class") == name).drop("class").to_dicts()
        assert {row.pop("metric"): row for row in rows} == of
    robots = pl.read_parquet(folder / "robots.parquet")
    assert robots["utilisation"].to_list() == told["of_robots"]["utilisation"]
    assert robots.select("fleet", "place").rows() == [("arms", 1), ("arms", 2)]
    curves = pl.read_parquet(folder / "curves.parquet")
    for name in ("waits", "stays", "in_line"):
        assert curves.filter(curve=name)["value"].to_list() == told["curves"][name]
    times = curves.filter(curve="in_line")["at_s"]
    assert (times[0], times[-1]) == (10.0, pytest.approx(120.0 - 1.1))


def test_a_comparison_leaves_its_differences(bench: Bench) -> None:
    folder, told = bench.compare(), bench.printed
    assert {path.name for path in folder.iterdir()} == {"differences.parquet", "compare.json", "report.html"}
    assert json.loads((folder / "compare.json").read_bytes()) == told
    table = pl.read_parquet(folder / "differences.parquet").filter(metric="W")
    assert table["estimate"].to_list() == [each["estimate"] for each in told["metrics"]["W"]]
    assert table["difference"].to_list() == [None, told["metrics"]["W"][1]["difference"]["estimate"]]


def test_nothing_is_written_that_was_not_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.folder / "here").mkdir()
    monkeypatch.chdir(bench.folder / "here")
    app = queue_app(Console(file=io.StringIO()))
    done = CliRunner().invoke(app, ["run", str(bench.file), "--replications", "2", "--duration", "20s"])
    assert done.exit_code == 0
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_played(
    bench: Bench, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulators.queue.lab._Lab.play", lambda *_: pytest.fail("played"))
    (bench.folder / command).write_text("in the way")
    with pytest.raises(Misuse, match=rf"--results .*{command} cannot be written to: File exists"):
        bench.run() if command == "run" else bench.compare()


def test_results_are_written_anew_and_all_else_is_left_alone(bench: Bench) -> None:
    folder = bench.run()
    before = pl.read_parquet(folder / "metrics.parquet")
    bench.run("--seed", "9")
    assert not pl.read_parquet(folder / "metrics.parquet").equals(before)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(Misuse, match=r"holds something else \(thesis.tex\): choose another"):
        bench.run()


def test_a_full_disk_is_said(bench: Bench) -> None:
    (bench.folder / "run").mkdir()
    (bench.folder / "run" / ".summary.json").symlink_to("/dev/full")
    with pytest.raises(Unavailable, match=r"summary.json cannot be written: No space left on device"):
        bench.run()


# -- reports


@pytest.mark.parametrize("command", ["run", "compare", "sweep"])
def test_a_report_needs_nothing_else_and_texts_are_no_markup(bench: Bench, command: str) -> None:
    folder = getattr(bench, command)()
    page = page_of(folder)
    assert page.addresses == []
    assert not {"link", "img", "iframe", "b"} & set(page.tags)
    assert page.scripts == 2  # what draws, and the charts
    text = (folder / "report.html").read_text()
    assert "default-src 'none'" in text
    assert "<script>alert(1)" not in text
    assert html.escape(EVIL) in text


def test_a_report_begins_with_what_was_played_and_how_it_is_beside_theory(bench: Bench) -> None:
    told = page_of(bench.run())
    words = " ".join(told.words)
    assert "Queue: yard" in words
    assert f"{bench.printed['jobs']:,} jobs on 2 robots, 2 times 120 s; the first 10 s are left out" in words
    metrics = bench.printed["metrics"].values()
    judged = [each for each in metrics if each["low"] < each["high"] and each["z"] is not None]
    inside = sum(each["low"] <= each["theory"] <= each["high"] for each in judged)
    assert f"M/M/2: theory is inside the interval of 95 % of {inside} of {len(judged)} figures." in words
    assert "Jobs of the class carry" in words


def test_what_speaks_against_the_figures_stands_above_them(bench: Bench) -> None:
    bench.file.write_text(json.dumps(YARD | {"fleets": {"arms": {**YARD["fleets"]["arms"], "count": 1}}}))
    bench.file.write_text(bench.file.read_text().replace('"rate": 1', '"rate": 1.5'))
    folder = bench.run()
    words = page_of(folder).words
    [warning] = [n for n, word in enumerate(words) if word.startswith("the load is 1.5")]
    assert warning < words.index("All jobs")
    assert '<p class="verdict">' in (folder / "report.html").read_text()


@pytest.mark.parametrize("asked", ["--seed 8 --robots 3", "--engine plain", "--precision 0.3"])
def test_who_has_a_report_can_make_the_same_figures_again(bench: Bench, asked: str) -> None:
    command, scenario = page_of(bench.run(*asked.split())).sources
    first = bench.printed
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:4] == ["fleetcast", "queue", "run", "scenario.yaml"]
    bench.file.write_text(scenario)
    bench(*words[2:3], *words[4:])
    assert bench.printed | {"seconds": 0} == first | {"seconds": 0}


def test_a_sweep_has_a_report_that_is_the_same_the_second_time(bench: Bench) -> None:
    folder = bench.sweep()
    first = (folder / "report.html").read_bytes()
    assert (folder / "points.parquet").exists()
    words = " ".join(page_of(folder).words)
    assert "4 points over load, robots." in words
    assert "--over load=0.5,0.9" in words
    bench.sweep()
    assert (folder / "report.html").read_bytes() == first


# -- charts


@pytest.fixture(scope="module")
def result() -> Result:
    return simulate(YARD, {"robots": 1, "load": 0.5}, replications=2, warm_up_s=0.0)


def values_of(chart: Any) -> list[dict[str, Any]]:
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_times_are_drawn_beside_the_whole_distribution_that_theory_has(result: Result) -> None:
    """M/M/1 of lambda 0.5 and mu 1: W is exponential of rate 0.5, and of the half of them Wq is, too."""
    rows = [row for row in values_of(result.plot("times")) if row["by"] == "theory"]
    for row in rows:
        share = 1.0 if row["what"] == "in the system" else 0.5
        assert row["exceeds"] == pytest.approx(share * exp(-0.5 * row["seconds"]), abs=1e-9)
    assert {row["what"] for row in rows} == {"waiting", "in the system"}
    # Of some 60 jobs a replication nobody knows what one of a thousand does.
    assert min(row["exceeds"] for row in rows) == pytest.approx(0.02, abs=0.01)


def test_only_of_a_model_that_is_known_there_is_a_curve() -> None:
    known = simulate(YARD, {"queue.discipline": "lifo", "duration": "20s"}, replications=2)
    assert known.findings.model == "M/M/2"
    assert curves_of(known.findings)["theory"].null_count() == len(curves_of(known.findings))
    assert {row["by"] for row in values_of(known.plot("times"))} == {"measured"}


def test_each_kind_of_chart_can_be_drawn_and_no_other(result: Result, tmp_path: Path) -> None:
    for kind in ("metrics", "times", "line", "robots"):
        result.plot(kind).save(str(tmp_path / f"{kind}.svg"))
        assert "<path" in (tmp_path / f"{kind}.svg").read_text()
    with pytest.raises(Misuse, match=r"no plot 'wait' of a run; there is metrics, times, line, robots"):
        result.plot("wait")


def line_of(jobs: list[float], step_s: float) -> pl.DataFrame:
    rows = [{"curve": "in_line", "at_s": n * step_s, "value": each} for n, each in enumerate(jobs)]
    return pl.DataFrame(rows, schema=CURVES)


def test_the_warm_up_is_marked_in_the_line_where_it_was_drawn() -> None:
    chart = charts.line_chart(line_of([1.0, 2.0, 3.0], 3_600.0), warm_up_s=1_800.0, theory=2.5)
    rows = values_of(chart)
    assert {"begins": 0.0, "ends": 0.5} in rows
    assert {"theory": 2.5} in rows
    assert [row["at"] for row in rows if "at" in row] == [0.0, 1.0, 2.0]
    assert "hours from the beginning" in chart.to_json()
    assert not [row for row in values_of(charts.line_chart(line_of([1.0, 2.0], 1.0))) if "begins" in row]


def test_many_robots_are_counted_by_how_busy_they_are() -> None:
    def fleet(count: int) -> pl.DataFrame:
        rows = [{"fleet": "a", "place": n, "utilisation": n / count, "jobs": 1.0} for n in range(count)]
        return pl.DataFrame(rows, schema=ROBOTS)

    assert [row["place"] for row in values_of(charts.robots_chart(fleet(100)))] == list(range(100))
    counted = values_of(charts.robots_chart(fleet(1_000)))
    assert len(counted) <= charts.BINS
    assert sum(row["robots"] for row in counted) == 1_000


def swept(over: dict[str, Any]) -> Sweep:
    return Sweep(scenario=Scenario.model_validate(YARD), folder=Path(), grid=grid_of(over))


def test_theory_between_the_points_of_a_sweep_is_that_of_each_place() -> None:
    table = theory_between(swept({"load": [0.2, 1.5], "robots": [1, 2]})).filter(metric="W", robots=1)
    for load, stay in table.select("load", "theory").rows():
        assert stay == pytest.approx(1 / (1 - load))
    assert (table["load"].min(), len(table) >= 20) == (0.2, True)
    assert table["load"].max() < 1.0  # type: ignore[operator]


def test_there_is_no_theory_of_half_a_robot_or_between_words() -> None:
    table = theory_between(swept({"robots": [2, 6]})).filter(metric="W")
    assert table["robots"].to_list() == [2, 3, 4, 5, 6]
    assert len(theory_between(swept({"jobs.classes.weld.service.mean": ["1s", "2s"]}))) == 0


def test_theory_that_goes_beyond_all_that_was_measured_is_cut_off() -> None:
    points = pl.DataFrame(
        {"load": [0.5, 1.5], "metric": "W", "estimate": [2.0, 20.0], "low": [1.0, 15.0], "high": [3.0, 25.0]}
    ).with_columns(theory=pl.Series([2.0, None]))
    between = theory_between(swept({"load": [0.5, 1.5], "robots": [1]})).drop("robots")
    drawn = values_of(charts.sweep_chart(points, ["load"], "W", between))
    assert max(row["theory"] for row in drawn if row["theory"] is not None) <= 25.0 * charts.ROOM
    assert len([row for row in drawn if row["estimate"] is None]) > 10


def test_numbers_of_reports_are_those_of_tables(bench: Bench) -> None:
    text = (bench.run() / "report.html").read_text()
    each = bench.printed["metrics"]["Wq"]
    cells = re.search(r"<td class=word>Wq: waiting time, s</td>(.*?)</tr>", text)
    assert cells is not None
    assert re.findall(r"<td>(.*?)</td>", cells[1])[:3] == [
        f"{each['estimate']:,.4g}",
        f"{each['low']:,.4g} to {each['high']:,.4g}",
        f"{each['theory']:,.4g}",
    ]
