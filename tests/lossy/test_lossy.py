"""Calls between processes of a fleet that are lost, whose answers are lost, or that are slow."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lossy.cluster import Cluster, environment
from lossy.faults import LOSSES, WAYS, Loss, Way, losing

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def run(module: str, *arguments: str, **faults: str) -> list[str]:
    """What it says, line by line."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment(**faults),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-6_000:]
    return ran.stdout.splitlines()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_command_of_which_calls_are_lost_happens_once(cluster: Cluster, loss: Loss, way: Way) -> None:
    said = run("lossy.commands", cluster.address, f"commands-{loss}-{way}", way, **losing(loss, 2, way))
    assert "read_a_feed" in said


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", LOSSES)
def test_what_rooms_tell_each_other_comes_once_though_their_calls_are_lost(
    cluster: Cluster, loss: Loss, way: Way
) -> None:
    assert "told once" in run("lossy.publishes", cluster.address, f"publishes-{loss}-{way}", loss, way)


def test_robots_that_beat_in_time_are_not_offline_though_calls_are_slow(cluster: Cluster) -> None:
    assert "nobody is offline" in run("lossy.delays", cluster.address, "delays")
