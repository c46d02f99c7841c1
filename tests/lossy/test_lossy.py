"""Calls between processes of a fleet that are lost, whose answers are lost, or that are slow."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lossy.cluster import Cluster, environment
from lossy.faults import LOSSES, Loss, losing

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


@pytest.mark.parametrize("loss", LOSSES)
def test_every_command_of_which_calls_are_lost_happens_once(cluster: Cluster, loss: Loss) -> None:
    said = run("lossy.commands", cluster.address, f"commands-{loss}", **losing(loss, 2))
    assert "read_a_feed" in said


@pytest.mark.parametrize("loss", LOSSES)
def test_what_rooms_tell_each_other_comes_once_though_their_calls_are_lost(
    cluster: Cluster, loss: Loss
) -> None:
    assert "told once" in run("lossy.publishes", cluster.address, f"publishes-{loss}", loss)


def test_robots_that_beat_in_time_are_not_offline_though_calls_are_slow(cluster: Cluster) -> None:
    assert "nobody is offline" in run("lossy.delays", cluster.address, "delays")
