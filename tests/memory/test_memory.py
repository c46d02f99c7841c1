"""Each case has a Ray of its own, whose settings hold for all of it, and so a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lossy.cluster import TESTS, environment
from lossy.faults import Way

from actors.supervisor import JOB_STORE, REGISTRY

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def run(module: str, *arguments: str, **more: str) -> list[str]:
    """What it says, line by line."""
    path = os.pathsep.join(map(str, (TESTS, TESTS.parent / "benchmarks", TESTS.parent)))
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment(PYTHONPATH=path, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-6_000:]
    return ran.stdout.splitlines()


@pytest.mark.parametrize(("way", "wires"), [("ray", "off"), ("wire", "{}")])
def test_what_is_too_large_for_a_full_object_store_happens_once_when_it_is_said_again(
    way: Way, wires: str
) -> None:
    assert "done once" in run("memory.full_objects", way, _FLEETCAST_WIRES=wires)


@pytest.mark.parametrize("actor", [JOB_STORE, REGISTRY])
def test_an_actor_that_is_killed_for_its_memory_is_back_with_all_that_was_acknowledged(
    tmp_path: Path, actor: str
) -> None:
    assert "killed, and back" in run("memory.eaten", str(tmp_path), actor)
