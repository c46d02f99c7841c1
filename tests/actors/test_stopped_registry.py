"""The registry is stopped, not killed: nobody who beats is offline for it, and nobody waits without end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import ray
from conftest import FollowFeed, World, quick_limits, served

from actors.supervisor import REGISTRY, Supervisor
from fleet.events import ROBOT_STATUS
from fleet.messages import RegisterRobot, RobotSpec
from simulators.load.swarm import Swarm
from simulators.robot import RobotProfile

ROBOTS = 20
pytestmark = pytest.mark.system


@asynccontextmanager
async def beating(world: World) -> AsyncIterator[FollowFeed]:
    """Robots on their sockets, each of which was heard; and what is told of them from then on."""
    swarm = Swarm(f"http://127.0.0.1:{world.port}", world.token("operator"), ROBOTS, RobotProfile())
    told = await FollowFeed.begin(world.fleet, ROBOT_STATUS)
    await swarm.start()
    try:
        await heard(told, 1)
        yield told
    finally:
        await swarm.stop()


async def heard(told: FollowFeed, times: int) -> None:
    """Until each robot was heard so often, and none was offline before."""
    counts: dict[str, int] = {}
    while len(counts) < ROBOTS or min(counts.values()) < times:
        [event] = await told.take(1)
        assert event["status"] != "offline", event
        counts[event["robot_id"]] = counts.get(event["robot_id"], 0) + 1


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize("timeouts", [1.1, 2.2])
async def test_robots_that_beat_stay_online_over_a_registry_that_was_stopped(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch, timeouts: float
) -> None:
    monkeypatch.setattr("actors.ray_room.RETRY_FOR_S", 0.7)
    limits = quick_limits(heartbeat_interval_ms=600)
    supervisor = Supervisor(f"test-{secrets.token_hex(4)}", limits, "0.0.0-test")
    fleet = await asyncio.to_thread(supervisor.client)
    timeout_s = limits.offline_after_ms_at(limits.heartbeat_interval_ms) / 1_000
    registry = ray.get_actor(REGISTRY, supervisor.namespace)
    process = await registry.__ray_call__.remote(lambda room: os.getpid())
    async with (
        served(fleet) as world,
        beating(world) as told,
        world.http() as http,
    ):
        with stopped(process):
            over = asyncio.get_running_loop().create_task(asyncio.sleep(timeouts * timeout_s))
            while not over.done():
                refusal = await http.get("/robots")
                assert (refusal.status_code, refusal.headers.get("Retry-After")) == (503, "1")
                assert (await http.post("/jobs", json={"name": "weld"})).status_code == 201
        await heard(told, 4)  # longer than the timeout
        await fleet.administer(RegisterRobot(RobotSpec(robot_id="silent")))
        offline = ""
        while offline != "silent":
            [event] = await told.take(1)
            offline = event["robot_id"] if event["status"] == "offline" else ""
            assert offline in ("", "silent")
    await fleet.close()
    supervisor.stop()
