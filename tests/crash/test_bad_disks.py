"""Disks that are full or fail: the job store exits, and what it acknowledged is there when it comes back."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.failing_disk import MAIN_DB, WAL
from crash.world import World

pytestmark = pytest.mark.system


class SmallDisk:
    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)

    def fill(self, leave: int = 0) -> None:
        """Until about `leave` bytes are free, though others write at the same time."""
        ballast = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with contextlib.suppress(OSError):
            while os.statvfs(self.folder).f_bavail * 4_096 > leave:
                os.write(ballast, bytes(4_096))
        os.close(ballast)

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    (tmp_path / "disk").mkdir()
    disk = SmallDisk(tmp_path / "disk", 16)
    yield disk
    disk.remove()


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
