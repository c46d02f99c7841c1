"""Robot API keys through the door: what they open, what they do not, and when they end."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from conftest import World, end_of, hear, until

from fleet.keys import key_secret

STREAMS = ["live-jobs", "robot-status", "queue-metrics", "metrics/stream"]


async def issued(world: World, robot_id: str = "r-1", **more: Any) -> dict[str, Any]:
    async with world.http() as http:
        answer = await http.post("/robot-api-keys", json={"robot_id": robot_id, **more})
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def as_robot(world: World, secret: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.port}/api/v1", headers={"X-Api-Key": secret})


async def closing(world: World, path: str, token: str) -> tuple[int, str]:
    async with world.open(path, token) as socket:
        return await end_of(socket)


@pytest.mark.parametrize("path", STREAMS)
async def test_a_robot_key_may_watch(world: World, path: str) -> None:
    key = await issued(world)
    async with world.open(path, key["api_key"]) as socket:
        await socket.send("ping")
        assert await until_pong(socket)


async def until_pong(socket: Any) -> bool:
    while await socket.recv() != "pong":
        pass
    return True


@pytest.mark.parametrize("path", STREAMS)
async def test_a_revoked_key_closes_its_sockets_and_opens_none(world: World, path: str) -> None:
    key = await issued(world)
    async with world.open(path, key["api_key"]) as socket, world.http() as http:
        await http.post(f"/robot-api-keys/{key['key_id']}/revoke")
        assert await end_of(socket) == (4001, "key revoked")
    assert await closing(world, path, key["api_key"]) == (4001, "Invalid authentication token")


async def test_a_key_that_nobody_issued_is_refused(world: World) -> None:
    for secret in (key_secret(b"\7" * 32), key_secret(b"\7" * 32)[:-1] + "x"):
        assert await closing(world, "live-jobs", secret) == (4001, "Invalid authentication token")


async def test_a_key_ends_with_its_time(world: World) -> None:
    key = await issued(world, ttl_s=1.5)
    assert await closing(world, "live-jobs", key["api_key"]) == (4001, "token expired")
    assert await closing(world, "live-jobs", key["api_key"]) == (4001, "Invalid authentication token")


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_claim_does_not_wait_for_longer_than_its_key_lives(world: World, end: str) -> None:
    key = await issued(world, **({"ttl_s": 1.5} if end == "expired" else {}))
    claim = {"robot_id": "r-1", "request_id": "q", "wait_ms": 20_000}
    async with world.http() as http, as_robot(world, key["api_key"]) as robot:
        await http.post("/robots/register", json={"robot_id": "r-1"})
        asking = asyncio.create_task(robot.post("/jobs/claim", json=claim))
        spec = {"name": "weld", "required_capabilities": ["nobody-has-this"]}
        blocked = (await http.post("/jobs", json=spec)).json()["job_id"]
        while not (await world.fleet.rooms.job_store.place(blocked, ["r-1"])).asking:
            await asyncio.sleep(0.01)
        if end == "revoked":
            await http.post(f"/robot-api-keys/{key['key_id']}/revoke")
        answer = await asyncio.wait_for(asking, 10)
        assert answer.status_code == 401
        assert answer.json()["detail"] == {"revoked": "key revoked", "expired": "token expired"}[end]
        job = (await http.post("/jobs", json={"name": "weld"})).json()
        await http.post("/jobs/claim", json=claim | {"wait_ms": 0})
        assert (await http.get(f"/jobs/{job['job_id']}")).json()["attempt"] == 1


async def test_the_key_of_a_deleted_robot_is_void(world: World) -> None:
    key = await issued(world)
    async with world.http() as http:
        await http.post("/robots/register", json={"robot_id": "r-1"})
        async with world.open("robot/r-1", key["api_key"]) as socket:
            assert (await http.delete("/robots/r-1")).status_code == 200
            assert (await end_of(socket))[0] == 4001


async def test_a_robot_acts_as_itself_only(world: World) -> None:
    key = await issued(world)
    async with as_robot(world, key["api_key"]) as http, world.http() as admin:
        mine = await http.post("/robots/register", json={"robot_id": "r-1"})
        other = await http.post("/robots/register", json={"robot_id": "r-2"})
        beat = await http.post("/robots/r-1/heartbeat", json={})
        await admin.post("/jobs", json={"name": "weld"})
        granted = await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": "q"})
        job = granted.json()["jobs"][0]
        held = {"robot_id": "r-1", "token": job["token"]}
        started = await http.post(f"/jobs/{job['job_id']}/start", json=held)
        forbidden = [
            other,
            await http.post("/robots/r-2/heartbeat", json={}),
            await http.post("/robots/heartbeats", json=[{"robot_id": "r-1"}, {"robot_id": "r-2"}]),
            await http.post("/jobs/claim", json={"robot_id": "r-2", "request_id": "q"}),
            await http.post("/jobs", json={"name": "weld"}),
            await http.post(f"/jobs/{job['job_id']}/cancel"),
            await http.put("/robots/r-1/status", json={"drain": True}),
            await http.delete("/robots/r-1"),
            await http.get("/robot-api-keys"),
            await http.post("/robot-api-keys", json={"robot_id": "r-1"}),
        ]
    assert [answer.status_code for answer in (mine, beat, granted, started)] == [201, 200, 200, 200]
    assert {answer.status_code for answer in forbidden} == {403}
    async with world.open("robot/r-2", key["api_key"]) as socket:
        assert (await end_of(socket))[0] == 1008
    async with world.open("robot/r-1", key["api_key"]) as socket:
        assert (await hear(socket))["type"] == "welcome"


async def test_keys_are_for_admins_and_their_secret_is_shown_once(world: World) -> None:
    key = await issued(world, name="arm 1")
    async with world.http() as http:
        await http.post("/robot-api-keys", json={"robot_id": "r-2"})
        text = (await http.get("/robot-api-keys", params={"robot_id": "r-1"})).text
        listed = (await http.get("/robot-api-keys", params={"robot_id": "r-1"})).json()["keys"]
        missing = await http.post("/robot-api-keys/none/revoke")
        bad = await http.post("/robot-api-keys", json={"robot_id": "a b"})
    assert key["api_key"] not in text
    assert listed == [{name: value for name, value in key.items() if name != "api_key"}]
    assert (listed[0]["name"], listed[0]["revoked_at"]) == ("arm 1", None)
    assert (missing.status_code, bad.status_code) == (404, 422)
    async with world.http("operator") as http:
        assert (await http.post("/robot-api-keys", json={"robot_id": "r"})).status_code == 403
        assert (await http.get("/robot-api-keys")).status_code == 403


@pytest.mark.parametrize("robot_id", ["a%20b", "x" * 65, "%C3%BC"])
async def test_a_robot_socket_with_an_impossible_name_is_closed_1008(world: World, robot_id: str) -> None:
    async with world.open(f"robot/{robot_id}") as socket:
        code, reason = await end_of(socket)
    assert code == 1008
    assert "robot_id" in reason


async def test_a_message_of_a_robot_that_makes_no_sense_is_answered_and_changes_nothing(
    world: World,
) -> None:
    async with world.open("robot/r-1") as socket, world.http() as http:
        await until(socket, lambda message: message["type"] == "welcome")
        for text in (
            "{",
            "[]",
            '{"type":"dance"}',
            '{"type":"heartbeat","cpu_percent":"x"}',
            '{"type":"start"}',
        ):
            await socket.send(text)
            error = await hear(socket)
            assert (error["type"], error["code"]) == ("error", "bad_message")
        assert (await http.get("/robots")).json()["total"] == 0
