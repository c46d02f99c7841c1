"""Many robots over one socket: each is heard as over its own, and none is another's victim."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from conftest import World, end_of, fresh, hear, until
from websockets.asyncio.client import ClientConnection

from api.routers import gateway_socket


class Controller:
    """A site controller's side of its socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.ids = 0

    async def say(self, *messages: dict[str, Any]) -> None:
        """One alone, several as an array."""
        await self.socket.send(json.dumps(messages[0] if len(messages) == 1 else list(messages)))

    async def ask(self, robot_id: str, kind: str, **fields: Any) -> Any:
        self.ids += 1
        said = self.ids
        await self.say({"robot_id": robot_id, "type": kind, "id": said, **fields})
        return await until(self.socket, lambda message: message.get("id") == said)


def register(robot_id: str, **fields: Any) -> dict[str, Any]:
    return {"robot_id": robot_id, "type": "register", **fields}


def beat(robot_id: str, **fields: Any) -> dict[str, Any]:
    return {"robot_id": robot_id, "type": "heartbeat", **fields}


async def status_of(world: World, robot_id: str) -> str:
    async with world.http() as http:
        answer = await http.get(f"/robots/{robot_id}")
    return str(answer.json()["status"]) if answer.status_code == 200 else ""


async def test_each_robot_is_welcomed_and_heard_under_its_name(world: World) -> None:
    async with world.open("robot-gateway") as socket, world.open("robot-status") as status:
        controller = Controller(socket)
        await controller.say(register("r-1"), register("r-2"), beat("r-2", memory_mb=7.5, status="busy"))
        heard = [await hear(socket) for _ in range(2)]
        assert heard == [{"robot_id": f"r-{n}", "type": "welcome", "heartbeat_ms": 400} for n in (1, 2)]
        event = await until(status, lambda event: event["status"] == "busy")
        assert (event["robot_id"], event["memory_mb"]) == ("r-2", 7.5)
        await socket.send("ping")
        assert await socket.recv() == "pong"


async def test_jobs_are_claimed_done_and_cancelled_by_name(world: World) -> None:
    async with world.open("robot-gateway") as socket, world.http() as http:
        controller = Controller(socket)
        for robot_id in ("r-1", "r-2"):
            await controller.say(register(robot_id))
        for _ in range(2):
            await http.post("/jobs", json={"name": "weld"})
        held = {}
        for robot_id in ("r-1", "r-2"):
            answer = await controller.ask(robot_id, "claim", request_id="same", wait_ms=5_000)
            assert answer["robot_id"] == robot_id
            [job] = answer["jobs"]
            held[robot_id] = {"job_id": job["job_id"], "token": job["token"]}
        stolen = await controller.ask("r-1", "start", **held["r-2"])
        assert (stolen["type"], stolen["robot_id"]) == ("error", "r-1")
        for robot_id, job in held.items():
            assert (await controller.ask(robot_id, "start", **job))["type"] == "ack"
        assert (await controller.ask("r-1", "complete", **held["r-1"]))["type"] == "ack"
        await http.post(f"/jobs/{held['r-2']['job_id']}/cancel")
        told = await until(socket, lambda message: message["type"] == "cancel")
        assert (told["robot_id"], told["job_id"]) == ("r-2", held["r-2"]["job_id"])


async def test_what_makes_no_sense_is_answered_and_harms_nobody_else(world: World) -> None:
    async with world.open("robot-gateway") as socket:
        controller = Controller(socket)
        wrong = [
            {"type": "heartbeat"},
            {"robot_id": ".", "type": "heartbeat"},
            {"robot_id": 7, "type": "heartbeat"},
            "text",
            None,
        ]
        await controller.say(*wrong, register("r-1"))
        for _ in wrong:
            answer = await hear(socket)
            assert (answer["type"], answer["code"]) == ("error", "bad_message")
            assert "robot_id" not in answer
        assert (await hear(socket))["type"] == "welcome"
        await controller.say({"robot_id": "r-1", "type": "dance", "id": 9})
        answer = await hear(socket)
        assert (answer["robot_id"], answer["id"], answer["code"]) == ("r-1", 9, "bad_message")
        for text in ("[1,", "{", "[" * 5_000):
            await socket.send(text)
            assert (await hear(socket))["code"] == "bad_message"


async def test_a_frame_larger_than_a_mebibyte_ends_the_socket_and_smaller_ones_do_not(world: World) -> None:
    async with world.open("robot-gateway") as socket:
        controller = Controller(socket)
        await controller.say(register("r-1", name="x" * 255), *[beat(f"r-{n}") for n in range(4_000)])
        await until(socket, lambda message: message.get("robot_id") == "r-3999")
        await socket.send("[" + " " * (1024 * 1024) + "]")
        assert (await end_of(socket))[0] == 1009


async def test_a_robot_that_appears_elsewhere_leaves_the_gateway_and_the_others_stay(world: World) -> None:
    async with world.open("robot-gateway") as socket:
        controller = Controller(socket)
        await controller.say(register("r-1"), register("r-2"))
        await until(socket, lambda message: message["robot_id"] == "r-2")
        async with world.open("robot/r-1") as own:
            assert (await hear(own))["type"] == "welcome"
            told = await until(socket, lambda message: message["type"] == "error")
            assert (told["robot_id"], told["code"]) == ("r-1", "superseded")
            assert (await controller.ask("r-2", "heartbeat"))["type"] == "ack"
            await controller.say(register("r-1"))
            assert await end_of(own) == (4409, "a newer connection of this robot took over")


async def test_two_gateways_may_hand_robots_over(world: World) -> None:
    async with world.open("robot-gateway") as one, world.open("robot-gateway") as other:
        await Controller(one).say(register("r-1"))
        await hear(one)
        await Controller(other).say(register("r-1"))
        assert (await hear(other))["type"] == "welcome"
        assert (await hear(one))["code"] == "superseded"


async def test_when_the_gateway_goes_its_claims_go_back(world: World) -> None:
    async with world.http() as http:
        async with world.open("robot-gateway") as socket:
            await Controller(socket).say(
                register("r-1"),
                {"robot_id": "r-1", "type": "claim", "request_id": "q", "wait_ms": 30_000},
            )
            await hear(socket)
        while (await world.connections())["connections"]["robots"]:
            await asyncio.sleep(0)
        job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        async with world.open("robot-gateway") as socket:
            controller = Controller(socket)
            await controller.say(register("r-2"))
            answer = await controller.ask("r-2", "claim", request_id="q", wait_ms=10_000)
            assert [job["job_id"] for job in answer["jobs"]] == [job_id]


async def test_a_gateway_has_a_bound_of_robots(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_socket, "MAX_ROBOTS", 2)
    async with world.open("robot-gateway") as socket:
        controller = Controller(socket)
        await controller.say(register("r-1"), register("r-2"))
        refused = await controller.ask("r-3", "register")
        assert (refused["robot_id"], refused["code"]) == ("r-3", "too_many_robots")
        assert (await controller.ask("r-2", "heartbeat"))["type"] == "ack"


async def test_many_messages_that_wait_for_the_fleet_hold_the_socket_and_all_are_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_socket, "MAX_UNANSWERED", 10)
    async with world.open("robot-gateway") as socket:
        controller = Controller(socket)
        await controller.say(register("r-1"))
        await hear(socket)
        for start in range(0, 500, 50):
            await controller.say(*(beat("r-1", id=start + n) for n in range(50)))
        acked = [message["id"] for message in [await hear(socket) for _ in range(500)]]
        assert acked == list(range(500))


async def test_what_a_session_that_ended_had_asked_holds_the_socket_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_socket, "MAX_UNANSWERED", 10)
    async with world.open("robot-gateway") as socket:
        controller = Controller(socket)
        claim = {"robot_id": "r-1", "type": "claim", "request_id": "q", "wait_ms": 30_000}
        for _ in range(12):
            await controller.say(register("r-1"), claim)
            await until(socket, lambda message: message["type"] == "welcome")
            async with world.open("robot/r-1"):
                await until(socket, lambda message: message.get("code") == "superseded")
        assert (await controller.ask("r-2", "register"))["type"] == "ack"


async def test_too_many_messages_for_long_end_the_socket() -> None:
    async with (
        fresh(max_gateway_messages_per_s=100, inbound_patience_s=0.1) as world,
        world.open("robot-gateway") as socket,
    ):
        await Controller(socket).say(*(beat("r-1") for _ in range(500)))
        assert await end_of(socket) == (1008, "too many messages a second")


@pytest.mark.parametrize("role", ["viewer"])
async def test_a_gateway_is_an_operators(world: World, role: str) -> None:
    async with world.open("robot-gateway", world.token(role)) as socket:
        code, reason = await end_of(socket)
    assert (code, "operator" in reason) == (1008, True)


async def test_binary_is_closed_1003(world: World) -> None:
    async with world.open("robot-gateway") as socket:
        await socket.send(b"\x00")
        assert (await end_of(socket))[0] == 1003
