"""The job store is killed where it hurts, over and over: nothing that was acknowledged is lost or doubled."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from crash.world import World
from postgres import Postgres

from actors import failpoints


class Crashes:
    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capture = capture

    async def run(self, store: str, hits: int, seed: int | None = None) -> None:
        """Every failpoint kills the job store `hits` times; at the first it makes its tables."""
        seed = secrets.randbits(32) if seed is None else seed
        with self._capture.disabled():
            print(f"crash test: seed {seed}")
        world = World(self._folder, store, seed)
        async with world.inhabited():
            for name in ["in-migration", *failpoints.ALL * hits]:
                await world.cycle(name)
            await world.calm_down()
        self._judge(world, hits)

    @staticmethod
    def _judge(world: World, hits: int) -> None:
        assert min(world.hits[name] for name in failpoints.ALL) >= hits
        assert world.fewest_in_flight >= 50
        world.assert_no_harm()


@pytest.fixture
def crashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Crashes:
    return Crashes(tmp_path, capsys)


async def test_twelve_crashes_lose_nothing(crashes: Crashes, tmp_path: Path) -> None:
    await crashes.run(f"sqlite:{tmp_path}", hits=2)


@pytest.mark.system
async def test_thirty_crashes_lose_nothing(crashes: Crashes, tmp_path: Path) -> None:
    await crashes.run(f"sqlite:{tmp_path}", hits=5)


@pytest.mark.system
async def test_crashes_on_postgresql_lose_nothing(crashes: Crashes, postgres: Postgres) -> None:
    await crashes.run(postgres.new_database(), hits=4)


@pytest.mark.long
async def test_three_hundred_crashes_lose_nothing(crashes: Crashes, tmp_path: Path) -> None:
    await crashes.run(f"sqlite:{tmp_path}", hits=50)


async def test_a_job_store_that_answers_before_its_commit_is_found_out(tmp_path: Path) -> None:
    world = World(tmp_path, f"sqlite:{tmp_path}", seed=1, hasty=True)
    async with world.inhabited():
        for _ in range(6):
            await world.cycle(failpoints.BEFORE_APPEND)
        await world.calm_down()
    assert "lost" in {violation.rule for violation in world.violations()}
