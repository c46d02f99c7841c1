"""PostgreSQL restarts, and ends connections, under a job store that serves: it is back within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crash.world import World
from postgres import Postgres

pytestmark = pytest.mark.system

BACK_IN_S = 5.0


async def trouble(folder: Path, store: str, make: Callable[[], Any], times: int) -> None:
    world = World(folder, store, seed=4)
    async with world.inhabited():
        world.begin()
        for _ in range(times):
            await world.answered(200)
            await asyncio.to_thread(make)
            async with asyncio.timeout(BACK_IN_S):
                await world.answered(200)
        await world.calm_down()
    world.assert_no_harm()


async def test_a_server_that_crashes_and_restarts(tmp_path: Path, postgres: Postgres) -> None:
    await trouble(tmp_path, postgres.new_database(), lambda: postgres.restart("immediate"), times=3)


async def test_connections_that_are_ended_by_the_server(tmp_path: Path, postgres: Postgres) -> None:
    store = postgres.new_database()
    await trouble(tmp_path, store, lambda: postgres.kill_backends(store), times=10)
