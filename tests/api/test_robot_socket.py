"""A robot's own socket: everything it may say, and what it is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from conftest import World, end_of, hear, until
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from api.routers.robots import ID_RULE
from fleet.errors import Unavailable
from fleet.messages import OpenSession, RegisterRobot


class Robot:
    """A robot's side of its socket; every message gets an id, and `ask` waits for its answer."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.ids = 0

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def ask(self, kind: str, **fields: Any) -> Any:
        self.ids += 1
        await self.say(kind, id=self.ids, **fields)
        return await until(self.socket, lambda message: message.get("id") == self.ids)

    async def grant(self, request_id: str = "q") -> dict[str, Any]:
        """The job id and token of the one job that is there."""
        [job] = (await self.ask("claim", request_id=request_id, wait_ms=5_000))["jobs"]
        assert job["lease_ms"] == 30_000
        return {"job_id": job["job_id"], "token": job["token"]}


async def submit(world: World, **spec: Any) -> str:
    async with world.http() as http:
        return str((await http.post("/jobs", json={"name": "weld", **spec})).json()["job_id"])


async def job(world: World, job_id: str) -> Any:
    async with world.http() as http:
        return (await http.get(f"/jobs/{job_id}")).json()


async def test_a_robot_is_welcomed_with_its_interval_and_its_pings_are_answered(world: World) -> None:
    async with world.open("robot/r-1") as socket:
        assert await hear(socket) == {"type": "welcome", "heartbeat_ms": 400}
        await socket.send("ping")
        assert await socket.recv() == "pong"


@pytest.mark.parametrize(
    "robot_id", ["register", "heartbeats", ".r", "%2E%2E", "a%2Fb", "r%0A", "x" * 65, ""]
)
async def test_an_id_that_http_could_not_name_is_refused_with_the_rule(world: World, robot_id: str) -> None:
    async with world.open(f"robot/{robot_id}") as socket:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(json.dumps({"type": "register"}))
        assert await end_of(socket) == (1008, ID_RULE)
    async with world.http() as http:
        assert (await http.get("/robots")).json()["total"] == 0


async def test_a_robot_does_a_job_and_tells_its_progress(world: World) -> None:
    job_id = await submit(world)
    async with world.open("robot/r-1") as socket:
        robot = Robot(socket)
        assert await robot.ask("register", name="arm", capabilities=["weld"]) == {"type": "ack", "id": 1}
        held = await robot.grant()
        await robot.ask("start", **held)
        await robot.ask("progress", **held, progress=40, current_node="seam", message="going on")
        assert (await job(world, job_id))["progress"] == 40
        await robot.ask("complete", **held, result={"seams": 3})
        again = await robot.ask("complete", **held, result={"seams": 3})
    done = await job(world, job_id)
    assert again == {"type": "ack", "id": 6}
    assert (done["status"], done["result"], done["robot_id"], done["attempt"]) == (
        "completed",
        {"seams": 3},
        "r-1",
        1,
    )


async def test_a_released_job_costs_no_attempt_and_a_failed_one_is_tried_again(world: World) -> None:
    job_id = await submit(world, max_attempts=2)
    async with world.open("robot/r-1") as socket:
        robot = Robot(socket)
        await robot.ask("register")
        await robot.ask("release", **await robot.grant("a"))
        assert ((await job(world, job_id))["status"], (await job(world, job_id))["attempt"]) == ("pending", 0)
        held = await robot.grant("b")
        await robot.ask("start", **held)
        await robot.ask("fail", **held, error="jam", retryable=True)
        back = await job(world, job_id)
        assert (back["status"], back["error"], back["attempt"]) == ("pending", "jam", 1)
        assert back["not_before"] is not None
        held = await robot.grant("c")
        await robot.ask("fail", **held, error="broken", retryable=False)
    dead = await job(world, job_id)
    assert (dead["status"], dead["error"], dead["dead_letter"]) == ("failed", "broken", True)


async def test_a_cancelled_job_is_told_once_and_ends_when_the_robot_obeys(
    world: World,
) -> None:
    job_id = await submit(world)
    async with world.open("robot/r-1") as socket, world.http() as http:
        robot = Robot(socket)
        await robot.ask("register")
        held = await robot.grant()
        await robot.ask("start", **held)
        await http.post(f"/jobs/{job_id}/cancel")
        assert await hear(socket) == {"type": "cancel", "job_id": job_id}
        await robot.ask("heartbeat", status="busy", jobs=[held])
        await robot.ask("cancelled", **held)
    assert (await job(world, job_id))["status"] == "cancelled"


async def test_a_robot_that_does_not_obey_loses_its_job_after_the_grace(world: World) -> None:
    job_id = await submit(world)
    async with world.open("robot/r-1") as socket, world.open("live-jobs") as jobs, world.http() as http:
        robot = Robot(socket)
        await robot.ask("register")
        held = await robot.grant()
        await http.post(f"/jobs/{job_id}/cancel")
        await until(jobs, lambda event: event["status"] == "cancelled")
        refused = await robot.ask("start", **held)
    assert (refused["type"], refused["code"]) == ("error", "terminal")


async def test_a_draining_robot_is_told_so_once_and_gets_no_job(world: World) -> None:
    async with world.open("robot/r-1") as socket, world.http() as http:
        robot = Robot(socket)
        await robot.ask("register")
        await http.put("/robots/r-1/status", json={"drain": True})
        await robot.say("heartbeat")
        assert await until(socket, lambda message: message["type"] == "drain")
        assert await robot.ask("heartbeat") == {"type": "ack", "id": 2}
        assert (await robot.ask("claim", request_id="q"))["code"] == "draining"


@pytest.mark.parametrize(
    ("kind", "fields", "code"),
    [
        ("heartbeat", {}, "not_found"),
        ("claim", {"request_id": "q"}, "not_found"),
        ("start", {"job_id": "none", "token": 1}, "not_found"),
        ("claim", {"request_id": ""}, "bad_message"),
        ("claim", {"request_id": "q", "limit": 11}, "bad_message"),
        ("heartbeat", {"cpu_percent": -1}, "bad_message"),
        ("progress", {"job_id": "j", "token": 1, "progress": 101}, "bad_message"),
        ("complete", {"job_id": "j", "token": -1}, "bad_message"),
    ],
)
async def test_what_a_robot_may_not_say_is_an_error_with_a_code(
    world: World, kind: str, fields: dict[str, Any], code: str
) -> None:
    async with world.open("robot/r-1") as socket:
        error = await Robot(socket).ask(kind, **fields)
        assert (error["type"], error["code"]) == ("error", code)
        assert error["detail"]


async def test_a_heartbeat_of_nobody_is_told_without_being_asked(world: World) -> None:
    async with world.open("robot/r-1") as socket:
        await Robot(socket).say("heartbeat")
        error = await until(socket, lambda message: message["type"] == "error")
        assert (error["id"], error["code"]) == (None, "not_found")


async def test_a_message_over_256_kib_closes_1009_and_binary_1003(world: World) -> None:
    for message, code in (("x" * (256 * 1024 + 1), 1009), (b"x", 1003)):
        async with world.open("robot/r-1") as socket:
            await socket.send(message)
            assert (await end_of(socket))[0] == code


async def test_a_thousand_messages_at_once_are_all_answered(world: World) -> None:
    async with world.open("robot/r-1") as socket:
        robot = Robot(socket)
        await robot.ask("register")
        for number in range(1_000):
            await robot.say("heartbeat", id=f"b{number}")
        answered = [(await hear(socket))["id"] for _ in range(1_000)]
    assert answered == [f"b{number}" for number in range(1_000)]


async def test_a_job_outlives_the_connection_of_its_robot(world: World) -> None:
    job_id = await submit(world)
    async with world.open("robot/r-1") as socket:
        robot = Robot(socket)
        await robot.ask("register")
        held = await robot.grant()
    async with world.open("robot/r-1") as socket:
        robot = Robot(socket)
        await robot.ask("start", **held)
        await robot.ask("complete", **held)
    assert (await job(world, job_id))["status"] == "completed"


async def test_what_a_robot_says_before_it_is_welcomed_is_heard_after(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry must know the new socket first, or it would take its words for the old one's."""
    registry, known = world.fleet.rooms.registry, asyncio.Event()
    execute = registry.execute

    async def slow(commands: Any) -> Any:
        if any(isinstance(command, OpenSession) for command in commands):
            await known.wait()
        return await execute(commands)

    async with world.open("robot/r-1") as older, world.http() as http:
        await Robot(older).ask("register")
        monkeypatch.setattr(registry, "execute", slow)
        async with world.open("robot/r-1") as socket:
            for number in range(100):
                await Robot(socket).say("heartbeat", id=number)
            await http.get("/jobs")  # by then the door has read them
            known.set()
            assert (await hear(socket))["type"] == "welcome"
            answered = [await hear(socket) for _ in range(100)]
        assert (await end_of(older))[0] == 4409
    assert answered == [{"type": "ack", "id": number} for number in range(100)]


async def test_a_new_robot_may_go_on_while_it_is_being_registered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim and heartbeat go other ways, and would be there first."""
    registry, may_go_on = world.fleet.rooms.registry, asyncio.Event()
    execute = registry.execute

    async def slow(commands: Any) -> Any:
        if any(isinstance(command, RegisterRobot) for command in commands):
            await may_go_on.wait()
        return await execute(commands)

    monkeypatch.setattr(registry, "execute", slow)
    job_id = await submit(world)
    async with world.open("robot/r-new") as socket, world.http() as http:
        robot = Robot(socket)
        assert (await hear(socket))["type"] == "welcome"
        await robot.say("register", id="register")
        await robot.say("heartbeat", id="beat")
        await robot.say("register", id="again")
        await robot.say("claim", id="claim", request_id="q", wait_ms=5_000)
        await http.get("/jobs")  # by then the door has read them
        may_go_on.set()
        answers = {each["id"]: each for each in [await hear(socket) for _ in range(4)]}
    assert {each["type"] for each in answers.values()} == {"ack"}
    assert [each["job_id"] for each in answers["claim"]["jobs"]] == [job_id]


async def test_what_a_new_robot_says_is_answered_when_it_cannot_be_registered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = world.fleet.rooms.registry
    execute = registry.execute

    async def refuse(commands: Any) -> Any:
        if any(isinstance(command, RegisterRobot) for command in commands):
            raise Unavailable("the registry is away")
        return await execute(commands)

    monkeypatch.setattr(registry, "execute", refuse)
    async with world.open("robot/r-new") as socket:
        robot = Robot(socket)
        await robot.say("register", id="register")
        await robot.say("heartbeat", id="beat")
        said = [await until(socket, lambda message: message["type"] == "error") for _ in range(2)]
    assert [(each["id"], each["code"]) for each in said] == [
        ("register", "unavailable"),
        ("beat", "not_found"),
    ]


async def test_a_result_that_may_be_read_in_two_ways_fails_its_report_only(world: World) -> None:
    job_id = await submit(world)
    async with world.open("robot/r-1") as socket:
        robot = Robot(socket)
        await robot.ask("register")
        held = await robot.grant()
        await robot.ask("start", **held)
        twice = json.dumps({"type": "complete", "id": 7, **held})[:-1] + ',"result":{"a":1,"a":2}}'
        await socket.send(twice)
        error = await until(socket, lambda message: message.get("id") == 7)
        assert (error["type"], error["code"]) == ("error", "bad_message")
        assert '"a" twice' in error["detail"]
    assert (await job(world, job_id))["status"] == "running"


async def test_a_result_nested_too_deep_is_refused_and_the_job_can_still_be_completed(world: World) -> None:
    job_id = await submit(world)
    async with world.open("robot/r-1") as socket:
        robot = Robot(socket)
        await robot.ask("register")
        held = await robot.grant()
        await robot.ask("start", **held)
        deep: Any = 1
        for _ in range(100):
            deep = [deep]
        assert (await robot.ask("complete", **held, result=deep))["code"] == "bad_message"
        await robot.ask("complete", **held, result=[1])
    assert (await job(world, job_id))["result"] == [1]
