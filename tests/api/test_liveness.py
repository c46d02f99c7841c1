"""Robots that are paused, deleted, or told to beat more slowly, over HTTP and on their sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from conftest import World, fresh, hear, quick_limits

from actors.local import LocalFleet
from fleet.limits import SECOND
from fleet.messages import (
    Beats,
    Claim,
    DeleteRobot,
    Held,
    RegisterRobot,
    RobotSpec,
    SetRobotStatus,
    UpdateRobot,
)
from fleet.wall_time import rfc3339

CLAIM = {"robot_id": "r-1", "request_id": "q"}


def in_s(seconds: float) -> str:
    return rfc3339(time.time_ns() + int(seconds * SECOND))


async def register(http: httpx.AsyncClient, robot_id: str = "r-1", **traits: Any) -> Any:
    return (await http.post("/robots/register", json={"robot_id": robot_id, **traits})).json()


async def submit(http: httpx.AsyncClient) -> str:
    return str((await http.post("/jobs", json={"name": "weld"})).json()["job_id"])


async def pause(http: httpx.AsyncClient, **what: Any) -> httpx.Response:
    return await http.put("/robots/r-1/status", json=what)


def outcome(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


class Gate:
    """Holds back calls to a room that carry a command of one kind, from the door's side."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: Any, kind: type) -> None:
        self.come, self.go = asyncio.Event(), asyncio.Event()
        self._execute, self._kind = room.execute, kind
        monkeypatch.setattr(room, "execute", self._call)

    async def _call(self, commands: Any) -> Any:
        if any(isinstance(command, self._kind) for command in commands):
            self.come.set()
            await self.go.wait()
        return await self._execute(commands)


def lose_first_reply(
    monkeypatch: pytest.MonkeyPatch, room: Any, meanwhile: Callable[[], Any] = lambda: None
) -> None:
    """Every call to the room is made twice, as after a reply that was lost; `meanwhile` happens between."""
    execute = room.execute

    async def twice(commands: Any) -> Any:
        await execute(commands)
        if any(isinstance(command, SetRobotStatus | UpdateRobot | DeleteRobot) for command in commands):
            await execute([again for again in [meanwhile()] if again])
        return await execute(commands)

    monkeypatch.setattr(room, "execute", twice)


@pytest.fixture
async def calm() -> AsyncIterator[World]:
    """Nobody is offline before 15 s."""
    fleet = LocalFleet(quick_limits(heartbeat_interval_ms=5_000))
    async with fresh(fleet=fleet) as world:
        yield world
    await fleet.close()


async def test_a_maintenance_says_why_and_until_when_and_ends_by_itself(calm: World) -> None:
    end = in_s(1.0)
    async with calm.open("robot-status") as stream, calm.http() as http:
        await register(http)
        paused = (await pause(http, status="maintenance", note="new gripper", until=end)).json()
        claimed = await http.post("/jobs/claim", json=CLAIM)
        seen = [(await hear(stream))["status"] for _ in range(3)]
        view = (await http.get("/robots/r-1")).json()
    assert (paused["status"], paused["maintenance"]["note"]) == ("maintenance", "new gripper")
    assert paused["maintenance"]["until"] == end
    assert paused["drain"] is None
    assert outcome(claimed) == (409, "maintenance")
    assert seen == ["idle", "maintenance", "idle"]
    assert (view["status"], view["maintenance"]) == ("idle", None)


async def test_a_robot_hears_on_its_socket_that_it_drains_and_that_the_drain_is_over(calm: World) -> None:
    async with calm.open("robot/r-1") as robot, calm.open("robot-status") as stream, calm.http() as http:
        await robot.send('{"type":"register"}')
        await hear(stream)
        drained = (await pause(http, drain=True, note="shift ends", until=in_s(1.0))).json()
        await robot.send('{"type":"heartbeat"}')
        assert [(await hear(robot))["type"] for _ in range(2)] == ["welcome", "drain"]
        for _ in range(2):  # its heartbeat, and the end of the drain
            await hear(stream)
        await robot.send('{"type":"heartbeat"}')
        assert (await hear(robot))["type"] == "resume"
        await robot.send('{"type":"claim","id":1,"request_id":"q"}')
        assert await hear(robot) == {"type": "ack", "id": 1, "jobs": []}
    assert (drained["draining"], drained["drain"]["note"]) == (True, "shift ends")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"status": "maintenance", "until": "2001-01-01T00:00:00Z"}, "past_time"),
        ({"drain": True, "until": "2001-01-01T00:00:00Z"}, "past_time"),
        ({"status": "maintenance", "until": "soon"}, "bad_time"),
        ({"status": "maintenance", "until": "2101-01-01T00:00:00"}, "bad_time"),
        ({"status": "idle", "until": "2101-01-01T00:00:00Z"}, "invalid"),
        ({"note": "x"}, "invalid"),
        ({"status": "maintenance", "note": "x" * 1_001}, ""),
    ],
)
async def test_a_pause_that_makes_no_sense_is_refused_and_changes_nothing(
    world: World, body: dict[str, Any], code: str
) -> None:
    async with world.http() as http:
        before = await register(http)
        refused = await http.put("/robots/r-1/status", json=body)
        assert refused.status_code == 422
        assert code in ("", refused.json()["code"])
        assert (await http.get("/robots/r-1")).json() == before


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"drain": True}, (409, "draining")),
        ({"status": "maintenance"}, (409, "maintenance")),
        (None, (404, "not_found")),
    ],
)
async def test_a_claim_on_its_way_while_its_robot_is_drained_set_aside_or_deleted_is_refused(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    body: dict[str, Any] | None,
    refusal: tuple[int, str],
) -> None:
    async with world.http() as http:
        await register(http)
        job_id = await submit(http)
        gate = Gate(monkeypatch, world.fleet.rooms.job_store, Claim)
        claiming = asyncio.create_task(http.post("/jobs/claim", json=CLAIM | {"wait_ms": 20_000}))
        await gate.come.wait()
        done = await (pause(http, **body) if body else http.delete("/robots/r-1"))
        gate.go.set()
        assert outcome(await asyncio.wait_for(claiming, 10)) == refusal
        assert done.status_code == 200
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "pending"


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"drain": True}, (409, "draining")),
        ({"status": "maintenance"}, (409, "maintenance")),
        (None, (404, "not_found")),
    ],
)
async def test_a_robot_that_is_paused_or_unknown_is_leased_nothing(
    world: World, body: dict[str, Any] | None, refusal: tuple[int, str]
) -> None:
    async with world.http() as http:
        job_id = await submit(http)
        if body:
            await register(http)
            await pause(http, **body)
        assert outcome(await http.post("/jobs/claim", json=CLAIM)) == refusal
        job = (await http.get(f"/jobs/{job_id}")).json()
    assert (job["status"], job["robot_id"], job["attempt"]) == ("pending", None, 0)


async def test_a_deletion_that_is_refused_leaves_the_robot_as_it_was(world: World) -> None:
    async with world.http() as http:
        await register(http, max_concurrent_jobs=2)
        job_ids = [await submit(http), await submit(http)]
        [job] = (await http.post("/jobs/claim", json=CLAIM)).json()["jobs"]
        before = (await http.get("/robots/r-1")).json()
        assert outcome(await http.delete("/robots/r-1")) == (409, "busy_robot")
        assert (await http.get("/robots/r-1")).json() == before
        assert (await http.post("/robots/r-1/heartbeat", json={})).json()["drain"] is False
        [other] = (await http.post("/jobs/claim", json=CLAIM | {"request_id": "next"})).json()["jobs"]
    assert [job["job_id"], other["job_id"]] == job_ids


async def test_a_robot_that_is_being_deleted_gets_no_job_and_does_not_seem_to_drain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.http() as http:
        await register(http)
        gate = Gate(monkeypatch, world.fleet.rooms.job_store, Held)
        deleting = asyncio.create_task(http.delete("/robots/r-1"))
        await gate.come.wait()
        assert (await http.get("/robots/r-1")).json()["draining"] is False
        assert outcome(await http.post("/jobs/claim", json=CLAIM)) == (409, "deleting")
        gate.go.set()
        assert (await deleting).json() == {"deleted": True, "robot_id": "r-1"}
        assert outcome(await http.delete("/robots/r-1")) == (404, "not_found")


async def test_commands_whose_reply_was_lost_are_answered_as_the_first_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.http() as http:
        await register(http)
        lose_first_reply(
            monkeypatch, world.fleet.rooms.registry, lambda: SetRobotStatus("r-1", maintenance=False)
        )
        paused = (await pause(http, status="maintenance")).json()
        named = (await http.put("/robots/r-1", json={"name": "arm"})).json()
        assert (await http.get("/robots/r-1")).json() == named
        assert (await http.delete("/robots/r-1")).status_code == 200
    # Somebody else ended the maintenance before it was asked for once more.
    assert (paused["status"], named["status"], named["name"]) == ("maintenance", "idle", "arm")


async def test_a_robot_that_joins_again_is_not_deleted_a_second_time_for_a_reply_that_was_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.http() as http:
        await register(http)
        lose_first_reply(
            monkeypatch, world.fleet.rooms.registry, lambda: RegisterRobot(RobotSpec(robot_id="r-1"))
        )
        assert (await http.delete("/robots/r-1")).status_code == 200
        assert (await http.get("/robots/r-1")).status_code == 200


@pytest.fixture
async def small_rate() -> AsyncIterator[World]:
    """Four robots may beat every 400 ms; more must beat more slowly."""
    limits = quick_limits(
        max_heartbeats_per_s=10, max_heartbeat_interval_ms=10_000, max_robots=100, min_lease_ms=1_000
    )
    fleet = LocalFleet(limits)
    async with fresh(fleet=fleet) as world:
        yield world
    await fleet.close()


async def test_robots_learn_by_their_heartbeats_how_often_to_beat(small_rate: World) -> None:
    async with small_rate.open("robot/r-1") as socket, small_rate.http() as http:
        await socket.send('{"type":"register"}')
        assert await hear(socket) == {"type": "welcome", "heartbeat_ms": 400}
        for number in range(8):
            told = (await register(http, f"s-{number}"))["heartbeat_interval_ms"]
        assert told >= 900
        await socket.send('{"type":"heartbeat","id":1}')
        assert await hear(socket) == {"type": "welcome", "heartbeat_ms": told}
        assert await hear(socket) == {"type": "ack", "id": 1}
        assert (await http.get("/robots/r-1")).json()["heartbeat_interval_ms"] == told
        assert (await http.post("/robots/s-0/heartbeat", json={})).json()["next_heartbeat_ms"] == told
        for number in range(8):
            await http.delete(f"/robots/s-{number}")
        await socket.send('{"type":"heartbeat","id":2}')
        assert await hear(socket) == {"type": "welcome", "heartbeat_ms": 400}


async def test_a_lease_lasts_three_of_the_intervals_that_its_robot_is_told(
    small_rate: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small_rate.http() as http:
        told = (await register(http))["heartbeat_interval_ms"]
        job_id = await submit(http)
        [job] = (await http.post("/jobs/claim", json=CLAIM)).json()["jobs"]
        assert job["lease_ms"] == 3 * told == 1_200
        for number in range(8):
            await register(http, f"s-{number}")
        extended = spy(monkeypatch, small_rate.fleet.rooms.job_store, Beats)
        body = {"jobs": [{"job_id": job_id, "token": job["token"]}]}
        told = (await http.post("/robots/r-1/heartbeat", json=body)).json()["next_heartbeat_ms"]
    assert extended[-1].lease_ms == 3 * told
    assert told > 400


def spy(monkeypatch: pytest.MonkeyPatch, room: Any, kind: type) -> list[Any]:
    """The commands of one kind that the room gets from now on."""
    seen: list[Any] = []
    execute = room.execute

    async def heard(commands: Any) -> Any:
        seen.extend(command for command in commands if isinstance(command, kind))
        return await execute(commands)

    monkeypatch.setattr(room, "execute", heard)
    return seen


async def test_a_stuck_job_is_shown_where_operators_look() -> None:
    fleet = LocalFleet(quick_limits(stuck_after_s=1))
    async with fresh(fleet=fleet) as world, world.open("live-jobs") as jobs, world.http() as http:
        await register(http)
        job_id, _ = await submit(http), await submit(http)
        [job] = (await http.post("/jobs/claim", json=CLAIM)).json()["jobs"]
        while (await http.get("/metrics/fleet")).json()["stuck_jobs"] == 0:
            pass
        listed = (await http.get("/jobs", params={"stuck": "true"})).json()
        shown = (await http.get(f"/jobs/{job_id}")).json()
        report = {"robot_id": "r-1", "token": job["token"]}
        started = (await http.post(f"/jobs/{job_id}/start", json=report)).json()
        seen = [(await hear(jobs))["status"] for _ in range(4)]
        none = (await http.get("/jobs", params={"stuck": "true"})).json()
        refused = await http.get("/jobs", params={"stuck": "perhaps"})
    await fleet.close()
    assert ([found["job_id"] for found in listed["jobs"]], listed["next_cursor"]) == ([job_id], None)
    assert (shown["status"], shown["stuck"], started["stuck"]) == ("claimed", True, False)
    assert seen == ["pending", "pending", "claimed", "running"]
    assert none["jobs"] == []
    assert outcome(refused) == (422, "bad_parameter")
