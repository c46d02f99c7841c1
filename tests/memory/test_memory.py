"""Each case has a Ray of its own, whose settings hold for all of it, and so a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lossy.cluster import TESTS, environment

from actors.supervisor import JOB_STORE, REGISTRY

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def run(module: str, *arguments: str) -> list[str]:
    """What it says, line by line."""
    path = os.pathsep.join(map(str, (TESTS, TESTS.parent / "benchmarks", TESTS.parent)))
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment(PYTHONPATH=path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-6_000:]
    return ran.stdout.splitlines()


def test_a_full_object_store_refuses_what_is_large_which_happens_once_when_it_is_said_again() -> None:
    assert "refused, and done once" in run("memory.full_objects")


@pytest.mark.parametrize("actor", [JOB_STORE, REGISTRY])
def test_an_actor_that_is_killed_for_its_memory_is_back_with_all_that_was_acknowledged(
    tmp_path: Path, actor: str
) -> None:
    assert "killed, and back" in run("memory.eaten", str(tmp_path), actor)
