"""`robot-status?conflate=`: the latest of each robot, so often, and never an older one last."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from conftest import World, end_of, hear, until
from feed_events import begin_anew, happen

from api.conflation import period_ms

KEYS = ("robot_id", "status", "cpu_percent", "memory_mb", "timestamp")


@pytest.mark.parametrize(
    ("asked", "period"),
    [
        ("50", 50),
        ("99", 50),
        ("100", 100),
        ("750", 500),
        ("60000", 60_000),
        ("49", None),
        ("60001", None),
        ("100000", None),
        ("-100", None),
        ("1e2", None),
        ("٥٠٠", None),
        ("", None),
    ],
)
def test_the_period_is_rounded_down_to_a_few(asked: str, period: int | None) -> None:
    assert period_ms(asked) == period


async def beats(world: World, robots: int, count: int) -> None:
    async with world.http() as http:
        for robot in range(robots):
            await http.post("/robots/register", json={"robot_id": f"r-{robot}"})
        for number in range(1, count + 1):
            body = [{"robot_id": f"r-{robot}", "memory_mb": number} for robot in range(robots)]
            assert (await http.post("/robots/heartbeats", json=body)).status_code == 200


async def test_a_watcher_hears_the_latest_of_every_robot_and_not_all_before(world: World) -> None:
    async with world.open("robot-status") as plain, world.open("robot-status", conflate=500) as few:
        last: dict[str, float] = {}
        heard = 0
        await beats(world, robots=5, count=40)
        while set(last.values()) != {40.0} or len(last) < 5:
            event = await hear(few)
            assert tuple(event) == KEYS
            assert event["memory_mb"] > last.get(event["robot_id"], -1)
            last[event["robot_id"]] = event["memory_mb"]
            heard += 1
        every = [await hear(plain) for _ in range(5 * 41)]
    assert heard < len(every) / 2
    assert {event["robot_id"]: event["memory_mb"] for event in every} == last


async def test_after_quiet_times_the_next_event_is_told_within_a_period(world: World) -> None:
    async with world.open("robot-status", conflate=100) as few:
        for number in (1, 2):
            await beats(world, robots=1, count=number)
            await until(few, lambda event, number=number: event["memory_mb"] == number)


async def test_when_history_is_lost_the_latest_state_is_told(world: World) -> None:
    for number in range(3):
        await happen(world, "robot-status", number)
    async with world.open("robot-status", conflate=100) as few:
        begin_anew(world, "robot-status")
        heard = [(await hear(few))["robot_id"] for _ in range(3)]
        assert len(set(heard)) == 3
        await happen(world, "robot-status", 4)
        await until(few, lambda event: event["robot_id"] not in heard)


async def test_who_leaves_is_counted_out_and_nothing_is_kept_for_it(world: World) -> None:
    async with world.open("robot-status", conflate=60_000):
        assert (await world.connections())["connections"]["robot-status"] == 1
    while (await world.connections())["connections"]["robot-status"]:
        await asyncio.sleep(0)
    await beats(world, robots=1, count=1)
    [group] = world.server.door.hub.feeds["robot-status"].conflated._groups.values()
    assert not any(group._parts)


@pytest.mark.parametrize("query", [{"v": 2}, {"since": "a:1"}])
async def test_numbers_and_conflation_do_not_go_together(world: World, query: dict[str, Any]) -> None:
    async with world.open("robot-status", conflate=100, **query) as socket:
        code, reason = await end_of(socket)
    assert (code, reason.startswith("conflate goes without v and since")) == (1008, True)


@pytest.mark.parametrize("asked", ["", "soon", "10", "70000"])
async def test_a_period_that_is_none_is_closed_1008_naming_it(world: World, asked: str) -> None:
    async with world.open("robot-status", conflate=asked) as socket:
        assert await end_of(socket) == (1008, "conflate must be a number of milliseconds from 50 to 60000")


async def test_ping_is_answered(world: World) -> None:
    async with world.open("robot-status", conflate=100) as socket:
        await socket.send("ping")
        assert await socket.recv() == "pong"
        await socket.send(json.dumps({"type": "heartbeat"}))
        await socket.send("ping")
        assert await socket.recv() == "pong"
