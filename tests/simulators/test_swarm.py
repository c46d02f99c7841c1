"""Simulated robots and their jobs over the real network path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from conftest import World, until
from network.proxy import Proxy, Weather

from simulators.load.job_source import MAX_WAITING, JobSource
from simulators.load.swarm import Swarm
from simulators.robot import RobotProfile

ROBOTS = 20


@asynccontextmanager
async def swarm_of(
    world: World, token: str = "", port: int | None = None, **profile: float
) -> AsyncIterator[Swarm]:
    settled = RobotProfile(**{"service_mean_s": 0.01, "failure_probability": 0.0} | profile)
    url = f"http://127.0.0.1:{port or world.port}"
    swarm = Swarm(url, token or world.token("operator"), ROBOTS, settled)
    await swarm.start()
    try:
        yield swarm
    finally:
        await swarm.stop()


async def connected(swarm: Swarm, count: int) -> None:
    while (await swarm.state()).connected != count:
        await asyncio.sleep(0)


async def completed(world: World, count: int) -> None:
    async with world.http() as http:
        while len((await http.get("/jobs", params={"status": "completed"})).json()["jobs"]) < count:
            pass


async def submit(world: World, count: int) -> None:
    async with world.http() as http:
        assert (await http.post("/jobs", json=[{"name": "weld"}] * count)).status_code == 201


async def test_simulated_robots_do_every_job_once(world: World) -> None:
    async with swarm_of(world) as swarm:
        await submit(world, 60)
        await completed(world, 60)
        async with world.http() as http:
            jobs = (await http.get("/jobs")).json()["jobs"]
        while (await swarm.state()).completed < 60:  # the last acknowledgement is still under way
            await asyncio.sleep(0)
        state = await swarm.state()
    assert (state.completed, state.failed, state.reconnects) == (60, 0, 0)
    assert {job["attempt"] for job in jobs} == {1}
    assert len({job["robot_id"] for job in jobs}) > ROBOTS / 2


async def test_simulated_robots_beat_and_stay_online(world: World) -> None:
    async with world.open("robot-status") as stream, swarm_of(world):
        beats: dict[str, int] = {}

        def all_beat_thrice(event: dict[str, str]) -> bool:
            assert event["status"] in ("idle", "busy")
            beats[event["robot_id"]] = beats.get(event["robot_id"], 0) + 1
            return len(beats) == ROBOTS and min(beats.values()) > 3

        await until(stream, all_beat_thrice)
        counts = await world.fleet.metrics()
    assert (counts.robots.total, counts.robots.active, counts.robots.offline) == (ROBOTS, ROBOTS, 0)


async def test_failing_robots_have_their_jobs_tried_again_until_they_are_dead(world: World) -> None:
    async with swarm_of(world, failure_probability=1.0), world.open("live-jobs") as stream:
        async with world.http() as http:
            await http.post("/jobs", json={"name": "weld", "max_attempts": 1})
        assert (await until(stream, lambda event: event["status"] == "failed"))["job_id"]


async def test_simulated_robots_obey_a_cancel(world: World) -> None:
    async with swarm_of(world, service_mean_s=1_000.0), world.open("live-jobs") as stream:
        await submit(world, 1)
        job_id = (await until(stream, lambda event: event["status"] == "running"))["job_id"]
        async with world.http() as http:
            await http.post(f"/jobs/{job_id}/cancel")
        await until(stream, lambda event: event["status"] == "cancelled")


async def test_simulated_robots_come_back_and_go_on_after_a_goodbye(world: World) -> None:
    async with swarm_of(world) as swarm:
        await connected(swarm, ROBOTS)
        await world.server.drain()
        world.server.door.serving = True  # as another server in its place would be
        while (await swarm.state()).reconnects < ROBOTS:
            await asyncio.sleep(0)
        await submit(world, 30)
        await completed(world, 30)


async def test_simulated_robots_try_again_when_a_connection_ends_within_its_handshake(
    world: World,
) -> None:
    async with Proxy.to(world.port, Weather()) as proxy, swarm_of(world, port=proxy.port) as swarm:
        async with proxy.hole("down"):
            while proxy.seen.held < ROBOTS:
                await asyncio.sleep(0)
            assert proxy.reset() == ROBOTS
        await connected(swarm, ROBOTS)


async def test_a_swarm_with_a_bad_token_does_not_storm_the_server(world: World) -> None:
    async with swarm_of(world, token="bad") as swarm:
        while (await swarm.state()).reconnects < ROBOTS:
            await asyncio.sleep(0)
        assert (await world.fleet.metrics()).robots.total == 0


async def test_a_job_source_submits_what_arrives(world: World) -> None:
    source = JobSource(f"http://127.0.0.1:{world.port}", world.token("operator"), 400.0)
    await source.start()
    async with world.open("queue-metrics") as stream:
        await until(stream, lambda event: event["depth"] > 200)
    await source.stop()
    state = await source.state()
    assert state.submitted > 200
    assert (state.failed_posts, state.dropped) == (0, 0)


async def test_a_job_source_without_a_server_holds_a_thousand_jobs_and_counts_the_rest() -> None:
    source = JobSource("http://127.0.0.1:1", "", 100_000.0)
    await source.start()
    while (state := await source.state()).dropped == 0 or state.failed_posts == 0:
        await asyncio.sleep(0)
    await source.stop()
    assert state.submitted == 0
    assert len(source._waiting) == MAX_WAITING


class Held:
    """A network that lets everything through at once, but for the first message, a microsecond later."""

    def __init__(self) -> None:
        self.last_us = 0

    def arrives_us(self, now_us: int, inbound: bool) -> int:
        self.last_us = max(now_us, self.last_us) if self.last_us else now_us + 1
        return self.last_us


class Wire:
    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, kind: Any, frame: bytes) -> None:
        self.sent.put_nowait(frame)


async def test_what_a_network_held_up_is_not_overtaken_by_what_it_lets_through() -> None:
    swarm = Swarm("http://127.0.0.1:1", "", 1, RobotProfile())
    await swarm.start()
    [robot], wire = swarm.robots, Wire()
    try:
        network = Held()
        robot.transport, robot.weather = wire, network  # type: ignore[assignment]
        assert swarm.send(robot, b"first")
        while time.monotonic_ns() // 1_000 < network.last_us:
            pass  # it is overdue now, and nobody had the time to send it
        assert swarm.send(robot, b"second")
        assert [await wire.sent.get(), await wire.sent.get()] == [b"first", b"second"]
    finally:
        robot.transport = None
        await swarm.stop()
