"""A short run, as `make chaos` does for longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "benchmarks")])
    return subprocess.run(
        [sys.executable, "-m", "chaos", *arguments],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_minute_of_chaos_breaks_no_promise() -> None:
    ran = chaos("--seconds", "50", "--every", "8")
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout
