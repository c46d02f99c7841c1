"""`fleetcast load` as a user runs it, and its report in a real browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from simulators_made import performance
from system.test_chromium import FLAGS

from simulators.load.load_report import load_report
from simulators.load.outcome import Outcome

pytestmark = pytest.mark.system

SCENARIOS = Path(__file__).parents[2] / "scenarios"


@contextmanager
def loading(results: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """In a session of its own, which is empty again in the end."""
    command = [sys.executable, "-m", "fleetcast", "load", *options, "--results", str(results)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JWT_", "FLEETCAST_"))}
    load = subprocess.Popen(
        command,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield load
        load.wait(90)
    finally:
        if load.poll() is None:
            os.killpg(load.pid, signal.SIGKILL)
            load.wait()
        assert load.stdout is not None
        load.stdout.close()


def outcome_in(results: Path) -> Outcome:
    [folder] = results.iterdir()
    return msgspec.json.decode((folder / "summary.json").read_bytes(), type=Outcome)


def dom(page: Path) -> str:
    """The page as the browser has made it, without any network."""
    command = ["chromium", *FLAGS, "--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


def test_a_load_test_with_its_own_server_ends_well_and_leaves_a_report(tmp_path: Path) -> None:
    with loading(tmp_path, str(SCENARIOS / "smoke.yaml"), "--serve", "--duration", "5s") as load:
        assert load.stdout is not None
        said = load.stdout.read()
    made = outcome_in(tmp_path)
    assert load.returncode == made.exit_code, said
    assert made.complete
    assert all(verdict.met for verdict in made.thresholds)
    assert (made.lost, made.duplicated, made.reordered) == (0, 0, 0)
    assert made.sent > 30
    assert made.usage is not None
    assert made.usage.server is not None
    assert made.usage.generator is not None
    assert made.usage.server.processes == 1 + 7  # the door, two rooms and their five broadcasters
    assert made.usage.generator.processes == 5  # watchers of three kinds, robots, jobs
    [folder] = tmp_path.iterdir()
    assert f"results in {folder}" in said
    page = dom(folder / "report.html")
    assert page.count('class="marks"') == 7
    assert page.count("<td>met</td>") == 2


def test_ctrl_c_ends_the_run_early_with_what_was_measured(tmp_path: Path) -> None:
    with loading(tmp_path, str(SCENARIOS / "smoke.yaml"), "--serve", "--duration", "1 h") as load:
        assert load.stdout is not None
        for line in load.stdout:
            if line.startswith("running"):
                break
        os.killpg(load.pid, signal.SIGINT)
        said = load.stdout.read()
    assert load.returncode == 2, said
    assert "INCOMPLETE: it was interrupted" in said
    made = outcome_in(tmp_path)
    assert not made.complete
    assert made.sent > 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["nowhere.yaml"], "nowhere.yaml cannot be read: No such file or directory"),
        ([str(SCENARIOS / "smoke.yaml"), "--serve", "--url", "http://127.0.0.1:1"], "leave out --url"),
        ([str(SCENARIOS / "smoke.yaml"), "--duration", "5"], "a duration is a number and a unit"),
        ([str(SCENARIOS / "smoke.yaml"), "--robots", "2000000"], "takes 1 to 1000000 robots"),
    ],
)
def test_what_makes_no_sense_is_told_before_ray_starts(tmp_path: Path, options: list[str], says: str) -> None:
    with loading(tmp_path, *options) as load:
        assert load.stdout is not None
        said = load.stdout.read()
    assert load.returncode == 2
    assert says in said.replace("\n", " ")
    assert "starting Ray" not in said


def test_the_report_draws_its_charts_without_any_other_file(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(load_report(performance(name="<i>odd</i> & long")))
    shown = dom(page)
    assert shown.count('class="marks"') == 7
    assert "&lt;i&gt;odd&lt;/i&gt; &amp; long" in shown
    assert "src=" not in shown.split("</head>")[0]
