"""A robot's key is replaced: what the old one and the new one open, and until when."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from conftest import World, end_of, served
from websockets.exceptions import ConnectionClosed

from fleet.events import KEYS

INVALID = (4001, "Invalid authentication token")
EVERY_DOOR = ["live-jobs", "robot-status", "queue-metrics", "metrics/stream", "robot/r-1"]


async def post(world: World, path: str, body: Any = None, role: str = "admin") -> httpx.Response:
    async with world.http(role) as http:
        return await http.post(f"/robot-api-keys{path}", **({} if body is None else {"json": body}))


async def issued(world: World, **more: Any) -> Any:
    return (await post(world, "", {"robot_id": "r-1", "name": "arm", **more})).json()


async def opens(world: World, secret: str) -> bool:
    async with world.open("live-jobs", secret) as socket:
        try:
            await socket.send("ping")
            return await socket.recv() == "pong"
        except ConnectionClosed:
            assert (socket.close_code, socket.close_reason) == INVALID
            return False


async def test_a_new_key_takes_the_place_of_the_old_one_at_once(world: World) -> None:
    old = await issued(world)
    async with world.open("live-jobs", old["api_key"]) as socket:
        got = await post(world, f"/{old['key_id']}/rotate")
        new = got.json()
        assert not await opens(world, old["api_key"])
        assert await end_of(socket) == (4001, "key revoked")
    assert got.status_code == 201
    assert (new["robot_id"], new["name"], new["expires_at"]) == ("r-1", "arm", None)
    assert new["api_key"] != old["api_key"]
    assert await opens(world, new["api_key"])
    async with world.http() as http:
        text = (await http.get("/robot-api-keys")).text
        listed = (await http.get("/robot-api-keys")).json()["keys"]
    assert new["api_key"] not in text
    assert [(key["key_id"], key["replaced_by"]) for key in listed] == [
        (new["key_id"], None),
        (old["key_id"], new["key_id"]),
    ]


@pytest.mark.parametrize("path", EVERY_DOOR)
async def test_when_the_grace_ends_the_sockets_of_the_old_key_are_closed_on_every_door(
    world: World, path: str
) -> None:
    async with served(world.fleet) as other:
        old = await issued(world)
        while not await opens(other, old["api_key"]):
            pass
        doors = [other] if path.startswith("robot/") else [world, other]
        async with AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(door.open(path, old["api_key"])) for door in doors]
            new = (await post(world, f"/{old['key_id']}/rotate", {"grace_s": 1.0})).json()
            assert await opens(world, old["api_key"])
            while not await opens(other, new["api_key"]):
                pass
            kept = await stack.enter_async_context(other.open("live-jobs", new["api_key"]))
            for socket in sockets:
                assert await end_of(socket) == (4001, "token expired")
            await kept.send("ping")
            assert await kept.recv() == "pong"
        assert not await opens(world, old["api_key"])
        assert not await opens(other, old["api_key"])


async def test_a_grace_can_be_cut_short_by_a_revocation(world: World) -> None:
    old = await issued(world)
    new = (await post(world, f"/{old['key_id']}/rotate", {"grace_s": 600})).json()
    async with world.open("live-jobs", old["api_key"]) as socket:
        await post(world, f"/{old['key_id']}/revoke")
        assert await end_of(socket) == (4001, "key revoked")
    assert await opens(world, new["api_key"])


async def test_a_new_key_lives_as_long_as_the_old_one_was_issued_for_unless_told(world: World) -> None:
    old = await issued(world, ttl_s=1_000_000)
    same = (await post(world, f"/{old['key_id']}/rotate")).json()
    assert same["expires_at"] >= old["expires_at"]
    shorter = (await post(world, f"/{same['key_id']}/rotate", {"ttl_s": 60})).json()
    assert shorter["expires_at"] < old["expires_at"]


@pytest.mark.parametrize("grace_s", [0, 600])
async def test_a_key_that_is_dead_or_was_rotated_is_not_rotated(world: World, grace_s: float) -> None:
    old = await issued(world)
    await post(world, f"/{old['key_id']}/rotate", {"grace_s": grace_s})
    again = await post(world, f"/{old['key_id']}/rotate", {"grace_s": grace_s})
    assert (again.status_code, again.json()["code"]) == (409, "rotated")
    revoked = await issued(world)
    await post(world, f"/{revoked['key_id']}/revoke")
    late = await post(world, f"/{revoked['key_id']}/rotate")
    assert (late.status_code, late.json()["code"]) == (409, "dead_key")
    assert (await post(world, "/none/rotate")).status_code == 404


@pytest.mark.parametrize(
    "body", [{"grace_s": -1}, {"grace_s": 604_801}, {"grace_s": "1"}, {"ttl_s": 0}, {"robot_id": "r-2"}, [1]]
)
async def test_a_bad_rotation_is_refused_and_rotates_nothing(world: World, body: Any) -> None:
    key = await issued(world)
    assert (await post(world, f"/{key['key_id']}/rotate", body)).status_code == 422
    assert (await post(world, f"/{key['key_id']}/rotate", role="operator")).status_code == 403
    async with world.http() as http:
        assert len((await http.get("/robot-api-keys")).json()["keys"]) == 1
    assert await opens(world, key["api_key"])


async def test_pages_of_keys_cover_all_without_repeating(world: World) -> None:
    ids = [(await issued(world))["key_id"] for _ in range(5)]
    await post(world, "", {"robot_id": "r-2"})
    seen, query = [], {"limit": "2", "robot_id": "r-1"}
    async with world.http() as http:
        while True:
            page = (await http.get("/robot-api-keys", params=query)).json()
            seen += [key["key_id"] for key in page["keys"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
            await issued(world)  # newer ones do not shift what is older
        for bad in ("limit=0", "limit=501", "limit=x"):
            assert (await http.get(f"/robot-api-keys?{bad}")).status_code == 422
        for foreign in ("", "0", "-1", "abc", "1.5", "9" * 19):
            refused = await http.get("/robot-api-keys", params={"cursor": foreign})
            assert (refused.status_code, refused.json()["code"]) == (400, "bad_cursor"), foreign
    assert seen == ids[::-1]


async def test_the_door_that_rotates_does_not_wait_to_hear_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, deaf, read = await issued(world), asyncio.Event(), world.fleet.read

    async def hear_nothing_of_keys(feed: str, *place: Any) -> Any:
        if feed == KEYS:
            deaf.set()
            await asyncio.Event().wait()
        return await read(feed, *place)

    monkeypatch.setattr(world.fleet, "read", hear_nothing_of_keys)
    await deaf.wait()
    new = (await post(world, f"/{old['key_id']}/rotate")).json()
    assert not await opens(world, old["api_key"])
    assert await opens(world, new["api_key"])
