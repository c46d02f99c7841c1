"""The job store is killed where it hurts, over and over: nothing that was acknowledged is lost or doubled."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from postgres import Postgres

from actors import failpoints
from crash.world import World


async def crash(folder: Path, store: str, cycles: int) -> World:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    world = World(folder, store, seed)
    async with world.inhabited():
        for number in range(cycles):
            await world.cycle(failpoints.ALL[(number - 1) % len(failpoints.ALL)])
        await world.calm_down()
    return world


def verdict(world: World, hits: int) -> None:
    assert all(world.hits[name] >= hits for name in failpoints.ALL), world.hits
    assert world.fewest_in_flight >= 50
    assert world.told == [world.found.events[number] for number in range(len(world.found.events))]
    violations = world.judge()
    assert not violations, "\n".join(map(str, violations[:20]))


async def test_a_few(tmp_path: Path) -> None:
    world = await crash(tmp_path, f"sqlite:{tmp_path}", 12)
    verdict(world, 2)
