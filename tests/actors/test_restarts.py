"""Actors that die and come back, on real Ray: the doors keep their sockets, and the fleet goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.exceptions
from conftest import FollowFeed, World, end_of, hear, quick_limits, refused, served, until

from actors.client import FleetClient
from actors.ray_room import RayRoom
from actors.supervisor import JOB_STORE, REGISTRY, Supervisor, broadcaster_name
from fleet.errors import Misuse, Unavailable
from fleet.events import FEEDS, LIVE_JOBS, METRICS, QUEUE_METRICS, ROBOT_STATUS
from fleet.messages import Beat, Get, Held, JobSpec, RegisterRobot, RobotSpec, Submit


@pytest.fixture
async def fleet(supervisor: Supervisor) -> AsyncIterator[FleetClient]:
    fleet = await asyncio.to_thread(supervisor.client)
    yield fleet
    await fleet.close()


@pytest.fixture
async def door(fleet: FleetClient) -> AsyncIterator[World]:
    async with served(fleet) as world:
        yield world


async def process_of(actor: Any) -> int:
    return await actor.__ray_call__.remote(lambda room: os.getpid())


async def crash(supervisor: Supervisor, *names: str) -> None:
    """Kills the actors' processes and waits until each has a new one."""
    actors = [ray.get_actor(name, supervisor.namespace) for name in names]
    before = [await process_of(actor) for actor in actors]
    for actor in actors:
        ray.kill(actor, no_restart=False)
    for actor, process in zip(actors, before, strict=True):
        while True:
            with contextlib.suppress(ray.exceptions.RayError):
                if await process_of(actor) != process:
                    break
            await asyncio.sleep(0)


@pytest.mark.parametrize("stream", [LIVE_JOBS, ROBOT_STATUS, QUEUE_METRICS])
async def test_a_broadcaster_that_restarts_loses_no_event_and_no_socket(
    supervisor: Supervisor, door: World, stream: str
) -> None:
    async with door.open(stream) as watcher, door.http() as http:
        await crash(supervisor, broadcaster_name(stream))
        await http.post("/robots/register", json={"robot_id": "r"})
        await http.post("/jobs", json=[{"name": "weld"}] * 3)
        if stream == LIVE_JOBS:
            assert [(await hear(watcher))["status"] for _ in range(3)] == ["pending"] * 3
        elif stream == ROBOT_STATUS:
            assert (await hear(watcher))["robot_id"] == "r"
        else:
            await until(watcher, lambda event: event["depth"] == 3)
            async with door.open(stream) as late:
                assert (await hear(late))["depth"] == 3


async def test_a_depth_that_does_not_change_is_known_again_after_a_restart(
    supervisor: Supervisor, fleet: FleetClient
) -> None:
    depths = await FollowFeed.begin(fleet, QUEUE_METRICS)
    await fleet.execute(Submit(["j"], [JobSpec(name="weld")]))
    assert (await depths.take(1))[0]["depth"] == 1
    await crash(supervisor, broadcaster_name(QUEUE_METRICS))
    page = await fleet.read(QUEUE_METRICS, depths.epoch, depths.offset, 0)
    assert page.recovered
    assert b'"depth":1' in (page.current or b"")


async def test_a_robot_that_a_new_registry_does_not_know_is_told_and_joins_again_on_its_socket(
    supervisor: Supervisor, door: World
) -> None:
    async with door.open("robot/r") as robot, door.open(ROBOT_STATUS) as watcher:
        await robot.send('{"type":"register","id":1}')
        await until(robot, lambda message: message["type"] == "ack")
        await crash(supervisor, REGISTRY)
        await robot.send('{"type":"heartbeat"}')
        assert (await until(robot, lambda message: message["type"] == "error"))["code"] == "not_found"
        await robot.send('{"type":"register","id":2}')
        assert await until(robot, lambda message: message["type"] == "ack") == {"type": "ack", "id": 2}
        await robot.send('{"type":"heartbeat","status":"busy"}')
        await until(watcher, lambda event: event["status"] == "busy")


async def test_a_claim_that_waits_through_a_restart_of_the_job_store_is_served(
    supervisor: Supervisor, fleet: FleetClient
) -> None:
    await fleet.administer(RegisterRobot(RobotSpec(robot_id="r")))
    waiting = fleet.claim("r", "q", 1, 30_000)
    await fleet.execute(Held("r"))
    await crash(supervisor, JOB_STORE)
    await fleet.execute(Submit(["j"], [JobSpec(name="weld")]))
    [grant] = (await asyncio.wait_for(waiting, 20)).grants
    assert grant.job.job_id == "j"
    assert await fleet.execute(Held("r")) == ["j"]


async def test_doors_tell_a_new_registry_which_sockets_they_hold(
    supervisor: Supervisor, fleet: FleetClient
) -> None:
    async with served(fleet, max_sockets_per_principal=1) as one:
        token = one.token("viewer")
        async with one.open(LIVE_JOBS, token):
            await crash(supervisor, REGISTRY)
            async with served(fleet, max_sockets_per_principal=1) as other:
                assert await refused(other, token) == (429, "principal_sockets")


async def test_metrics_go_on_after_a_restart_of_their_broadcaster(
    supervisor: Supervisor, fleet: FleetClient
) -> None:
    before = await fleet.read(METRICS, "", 0, 0)
    await crash(supervisor, broadcaster_name(METRICS))
    page = await fleet.read(METRICS, before.epoch, before.offset, 0)
    assert (page.recovered, page.epoch != before.epoch) == (False, True)
    while page.current is None:
        page = await fleet.read(METRICS, page.epoch, page.offset, 5_000)
    assert page.current.startswith(b'{"type":"metrics"')


async def test_everything_crashing_at_once_leaves_a_fleet_that_works(
    supervisor: Supervisor, fleet: FleetClient
) -> None:
    await crash(supervisor, JOB_STORE, REGISTRY, *map(broadcaster_name, FEEDS))
    await fleet.administer(RegisterRobot(RobotSpec(robot_id="r")))
    await fleet.execute(Submit(["j"], [JobSpec(name="weld")]))
    assert (await fleet.heartbeat(Beat("r"), [])).refused == ""
    assert [grant.job.job_id for grant in (await fleet.claim("r", "q", 1, 0)).grants] == ["j"]


async def test_a_second_door_finds_the_same_fleet(supervisor: Supervisor, fleet: FleetClient) -> None:
    await fleet.execute(Submit(["j"], [JobSpec(name="weld")]))
    other = await asyncio.to_thread(supervisor.client)
    assert (await other.execute(Get("j"))).job_id == "j"
    await other.close()


async def test_a_fleet_that_was_stopped_is_gone(supervisor: Supervisor, fleet: FleetClient) -> None:
    assert supervisor.stop() == 2 + len(FEEDS)
    with pytest.raises(Misuse, match="no fleet runs"):
        supervisor.find()


async def test_a_room_that_nobody_made_is_unavailable_in_time(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.ray_room.RETRY_FOR_S", 0.1)
    room = pickle.loads(pickle.dumps(RayRoom("nobody", "nowhere")))
    with pytest.raises(Unavailable) as refused:
        await room.counts()
    assert refused.value.retry_after_s == 1.0


async def test_a_key_that_a_new_registry_does_not_know_is_void(supervisor: Supervisor, door: World) -> None:
    async with door.http() as http:
        secret = (await http.post("/robot-api-keys", json={"robot_id": "r"})).json()["api_key"]
        async with door.open(LIVE_JOBS, secret) as watcher:
            await crash(supervisor, REGISTRY)
            assert await end_of(watcher) == (4001, "key revoked")
        assert (await http.get("/robot-api-keys")).json() == {"keys": [], "next_cursor": None}


# -- with a store that survives


@pytest.fixture
def lasting(ray_cluster: None, tmp_path: Path) -> Iterator[Supervisor]:
    name = f"test-{secrets.token_hex(4)}"
    supervisor = Supervisor(name, quick_limits(), "0.0.0-test", store=f"sqlite:{tmp_path}")
    yield supervisor
    supervisor.stop()


@pytest.fixture
async def lasting_door(lasting: Supervisor) -> AsyncIterator[World]:
    fleet = await asyncio.to_thread(lasting.client)
    async with served(fleet) as world:
        yield world
    await fleet.close()


async def test_what_was_acknowledged_is_there_after_all_rooms_were_killed(
    lasting: Supervisor, lasting_door: World
) -> None:
    """Robot, its maintenance, its key, its job and the token of that job."""
    async with lasting_door.http() as http:
        await http.post("/robots/register", json={"robot_id": "r", "capabilities": ["weld"]})
        await http.post("/robots/register", json={"robot_id": "gone"})
        await http.delete("/robots/gone")
        secret = (await http.post("/robot-api-keys", json={"robot_id": "r"})).json()["api_key"]
        [mine, other] = (await http.post("/jobs", json=[{"name": "a"}, {"name": "b"}])).json()["jobs"]
        claim = {"robot_id": "r", "request_id": "q"}
        [grant] = (await http.post("/jobs/claim", json=claim)).json()["jobs"]
        await http.put("/robots/r/status", json={"status": "maintenance", "note": "new gripper"})
        async with lasting_door.open(LIVE_JOBS, secret) as watcher:
            await crash(lasting, JOB_STORE, REGISTRY)
            report = {"robot_id": "r", "token": grant["token"]}
            assert (await http.post("/jobs/claim", json=claim)).json()["code"] == "maintenance"
            assert (await http.post(f"/jobs/{mine['job_id']}/start", json=report)).status_code == 200
            await until(watcher, lambda event: event["status"] == "running")
            done = await http.post(f"/jobs/{mine['job_id']}/complete", json=report)
        assert done.json()["status"] == "completed"
        await http.post("/robots/r/heartbeat", json={})
        robots = (await http.get("/robots")).json()["robots"]
        assert [(robot["robot_id"], robot["status"]) for robot in robots] == [("r", "maintenance")]
        assert (await http.get(f"/jobs/{other['job_id']}")).json()["status"] == "pending"


async def test_while_the_job_store_is_frozen_others_get_503_and_readiness_tells(
    lasting: Supervisor, lasting_door: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.ray_room.RETRY_FOR_S", 0.5)
    monkeypatch.setattr("actors.health.ANSWER_S", 0.5)
    process = await process_of(ray.get_actor(JOB_STORE, lasting.namespace))
    async with lasting_door.http() as http:
        [job] = (await http.post("/jobs", json=[{"name": "a"}])).json()["jobs"]
        os.kill(process, signal.SIGSTOP)
        try:
            refusal = await http.get(f"/jobs/{job['job_id']}")
            assert (refusal.status_code, refusal.headers["Retry-After"]) == (503, "1")
            while (ready := await http.get("/health/ready")).status_code == 200:
                pass
            assert ready.json() == {"status": "fleet_down"}
            assert (await http.get("/robots")).status_code == 200
        finally:
            os.kill(process, signal.SIGCONT)
        while (await http.get("/health/ready")).status_code != 200:
            pass
        assert (await http.get(f"/jobs/{job['job_id']}")).status_code == 200
