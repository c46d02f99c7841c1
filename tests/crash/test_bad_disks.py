"""Disks that are full or fail: the job store exits, and what it acknowledged is there when it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash.failing_disk import MAIN_DB, WAL
from crash.world import World
from stores.small_disk import SmallDisk

pytestmark = pytest.mark.system


async def test_a_failed_sync_is_never_acknowledged_and_never_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, f"sqlite:{tmp_path}", seed=2)
    async with world.inhabited():
        for syncs in (5, 9, 2, 14):
            for kind in (WAL, MAIN_DB):
                world.begin(bad_sync=(kind, syncs if kind == WAL else syncs % 3))
                assert await world.died() == 1
                world.look()
        await world.calm_down()
    world.assert_no_harm()


@pytest.mark.parametrize("leave", [0, 100_000, 400_000])
async def test_a_full_disk_is_never_acknowledged_and_serves_again_with_room(
    tmp_path: Path, small_disk: SmallDisk, leave: int
) -> None:
    world = World(tmp_path, f"sqlite:{small_disk.folder}", seed=3)
    async with world.inhabited():
        for _ in range(3):
            world.begin()
            await world.answered(300)
            small_disk.fill(leave)
            assert await world.died() == 1
            small_disk.empty()
            world.look()
        await world.calm_down()
    world.assert_no_harm()
