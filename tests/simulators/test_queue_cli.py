"""`fleetcast queue`, as people and programs read it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fleet.errors import Misuse
from simulators.queue.cli import queue_app

SCENARIO = """\
name: yard
duration: 5 min
fleets:
  robots: {count: 2, heartbeats: {interval: 60s}}
jobs:
  arrivals: {kind: poisson, rate: 1}
  classes:
    weld: {service: {kind: exponential, mean: 1s}}
"""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.told = io.StringIO()
        self.file = folder / "yard.yaml"
        self.file.write_text(SCENARIO)
        self._app = queue_app(Console(file=self.told, width=120))

    def __call__(self, *words: str) -> str:
        """What it printed."""
        done = CliRunner().invoke(self._app, ["run", str(self.file), *words])
        if done.exception is not None:
            raise done.exception
        return str(done.stdout) + self.told.getvalue()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_people_get_a_table_with_theory_beside_it(bench: Bench) -> None:
    told = bench("--replications", "3", "--warm-up", "10s")
    assert "yard: " in told
    assert "theory: M/M/2" in told
    assert "the first 10 s are left out" in told
    for name in ("L", "Lq", "W", "Wq", "utilisation", "P_wait", "throughput", "Wq_p95"):
        assert f"│ {name} " in told


def test_programs_get_one_object(bench: Bench) -> None:
    found = json.loads(bench("--json", "--replications", "2", "--seed", "5", "--robots", "3"))
    assert {"metrics", "jobs", "seconds"} <= set(found)
    assert set(found["metrics"]["Wq"]) == {"estimate", "low", "high", "theory", "z"}
    assert (found["seed"], found["robots"], found["replications"], found["model"]) == (5, 3, 2, "M/M/3")
    assert found["jobs"] > 500


def test_bad_words_are_refused(bench: Bench) -> None:
    with pytest.raises(Misuse, match=r"--warm-up: a duration is a number and a unit"):
        bench("--warm-up", "10")
    with pytest.raises(Misuse, match=r"--duration: a duration is"):
        bench("--duration", "soon")
    bench.file.write_text("name: yard")
    with pytest.raises(Misuse, match=r"yard\.yaml"):
        bench()
