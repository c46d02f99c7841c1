"""Watchers that ask for places (`v=2`) and come back: real uvicorn, real clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import World, end_of, fresh, hear, quick_limits, served, until
from feed_events import begin_anew, happen
from websockets.asyncio.client import ClientConnection, connect

from actors.client import FleetClient
from actors.local import LocalFleet
from fleet.errors import Unavailable
from fleet.feed import Page
from fleet.limits import Limits
from fleet.messages import JobSpec, RegisterRobot, RobotSpec, Submit
from fleet.stream_messages import FeedState

STREAMS = ["live-jobs", "robot-status", "queue-metrics"]
TYPES = {
    "live-jobs": "job_status_changed",
    "robot-status": "robot_heartbeat",
    "queue-metrics": "queue_depth_changed",
}


def place(message: Any) -> str:
    return f"{message['epoch']}:{message['offset']}"


async def opened(socket: ClientConnection) -> Any:
    hello = await hear(socket)
    assert tuple(hello) == ("type", "epoch", "offset", "data")
    assert hello["type"] == "hello"
    return hello


async def gap(socket: ClientConnection, reason: str) -> None:
    message = await hear(socket)
    assert message == {"type": "gap", "epoch": None, "offset": None, "data": {"reason": reason}}


async def snapshot(socket: ClientConnection) -> tuple[str, list[Any]]:
    """The place after it, and all its items."""
    items: list[Any] = []
    while True:
        message = await hear(socket)
        assert message["type"] == "snapshot"
        data = message["data"]
        items += data["items"]
        if data["part"] == data["parts"]:
            assert data["complete"]
            return place(message), items
        assert message["epoch"] is message["offset"] is None


@pytest.mark.parametrize("stream", STREAMS)
async def test_events_have_places_that_count_up_and_plain_watchers_get_the_same_bytes_without(
    world: World, stream: str
) -> None:
    async with world.open(stream) as plain, world.open(stream, v=2) as numbered:
        hello = await opened(numbered)
        assert hello["data"] == {"recovered": False}
        if stream == "queue-metrics":
            assert (await hear(plain))["depth"] == 0
            assert (await snapshot(numbered))[1][0]["depth"] == 0
        for number in range(1, 4):
            await happen(world, stream, number)
            bare, wrapped = await plain.recv(), await numbered.recv()
            at = f'"epoch":"{hello["epoch"]}","offset":{hello["offset"] + number}'
            assert wrapped == f'{{"type":"{TYPES[stream]}",{at},"data":{bare}}}'


@pytest.mark.parametrize("stream", STREAMS)
async def test_a_watcher_whose_connection_broke_continues_exactly_where_it_was(
    world: World, stream: str
) -> None:
    async with world.open(stream, v=2) as witness:
        await opened(witness)
        if stream == "queue-metrics":
            await hear(witness)
        async with world.open(stream, v=2) as socket:
            start = await opened(socket)
            for number in range(2):
                await happen(world, stream, number)
            heard = [await until(socket, lambda message: message["type"] == TYPES[stream])]
            socket.transport.abort()
        for number in range(2, 5):
            await happen(world, stream, number)
        async with world.open(stream, since=place(heard[0])) as socket:  # without v: the place implies it
            hello = await opened(socket)
            assert (place(hello), hello["data"]) == (place(heard[0]), {"recovered": True})
            await happen(world, stream, 5)
            heard += [await hear(socket) for _ in range(5)]
        assert heard == [await hear(witness) for _ in range(6)]
    assert [m["offset"] for m in heard] == [start["offset"] + n for n in range(1, 7)]


async def test_the_places_of_hello_and_of_a_snapshot_are_places_to_come_back_to(world: World) -> None:
    async with world.open("live-jobs", v=2) as socket:
        hello = place(await opened(socket))
    async with world.open("live-jobs", since="") as socket:
        assert (await hear(socket))["data"] == {"recovered": False}
        after_snapshot, _ = await snapshot(socket)
    await happen(world, "live-jobs", 1)
    for since in (hello, after_snapshot):
        async with world.open("live-jobs", since=since) as socket:
            assert (await opened(socket))["data"] == {"recovered": True}
            assert (await hear(socket))["data"]["status"] == "pending"


async def test_a_place_that_is_not_kept_any_more_is_a_gap_and_the_latest_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.fanout.KEPT_FRAMES", 4)
    fleet = LocalFleet(quick_limits(feed_events=20, max_batch=20))
    async with served(fleet) as world, world.http() as http:
        async with world.open("live-jobs", v=2) as socket:
            since = place(await opened(socket))
            jobs = []
            for _ in range(12):
                jobs.append((await http.post("/jobs", json={"name": "weld"})).json()["job_id"])
                await hear(socket)  # the door has it
            await http.post(f"/jobs/{jobs[0]}/cancel")
            await until(socket, lambda message: message["data"]["status"] == "cancelled")
        async with world.open("live-jobs", since=since) as socket:
            hello = await hear(socket)
            assert hello == {"type": "hello", "epoch": None, "offset": None, "data": {"recovered": False}}
            await gap(socket, "expired")
            after, items = await snapshot(socket)
            assert {item["job_id"]: item["status"] for item in items} == dict.fromkeys(jobs, "pending") | {
                jobs[0]: "cancelled"
            }
            assert [tuple(item) for item in items] == [("job_id", "status", "timestamp")] * 12
            await http.post(f"/jobs/{jobs[1]}/cancel")
            event = await hear(socket)
        assert (event["data"]["job_id"], event["data"]["status"]) == (jobs[1], "cancelled")
        assert event["offset"] == int(after.split(":")[1]) + 1
    await fleet.close()


@pytest.mark.parametrize("stream", STREAMS)
async def test_a_place_of_another_stream_or_of_the_future_is_a_gap_and_the_latest_state(
    world: World, stream: str
) -> None:
    await happen(world, stream, 7)
    async with world.open(stream, v=2) as socket:
        epoch, offset = place(await opened(socket)).split(":")
    for since in (f"{epoch}:{int(offset) + 1}", f"elsewhere:{offset}", f"{epoch}:{10**17}"):
        async with world.open(stream, since=since) as socket:
            assert (await hear(socket))["data"] == {"recovered": False}
            await gap(socket, "unknown")
            assert len((await snapshot(socket))[1]) == 1
    async with world.open(stream, since="elsewhere:1") as socket:
        await until(socket, lambda message: message["type"] == "snapshot")
        await happen(world, stream, 8)
        assert (await hear(socket))["type"] == TYPES[stream]


@pytest.mark.parametrize(
    "since", ["x", ":", "a:", ":1", "a:b", "a:-1", "a:01", "a:1 ", "a:1\n", "a b:1", "a:" + "9" * 19, "ä:1"]
)
async def test_a_place_that_is_none_is_an_error_for_programs_then_the_latest_state(
    world: World, since: str
) -> None:
    await happen(world, "robot-status", 1)
    async with world.open("robot-status", since=since) as socket:
        assert (await hear(socket))["data"] == {"recovered": False}
        error = await hear(socket)
        assert (error["type"], error["epoch"], error["data"]["code"]) == ("error", None, "bad_since")
        assert "since" in error["data"]["detail"]
        await gap(socket, "unknown")
        _, [robot] = await snapshot(socket)
    assert robot["robot_id"] == "r-1"


@pytest.mark.parametrize("stream", [*STREAMS, "metrics/stream"])
@pytest.mark.parametrize("query", ["v=1", "v=3", "v=", "v=two", "v=2&v=2", "since=a:1&since=a:1"])
async def test_another_version_and_what_is_said_twice_are_closed_1008_naming_it(
    world: World, stream: str, query: str
) -> None:
    async with connect(f"{world.url(stream)}&{query}", compression=None) as socket:
        code, reason = await end_of(socket)
    assert code == 1008
    assert query[: query.index("=")] in reason
    assert await world.watching() == 0


async def test_a_stream_of_snapshots_has_nothing_to_continue(world: World) -> None:
    for query in ({"v": 2}, {"since": "a:1"}, {"since": ""}):
        async with world.open("metrics/stream", **query) as socket:  # type: ignore[arg-type]
            code, reason = await end_of(socket)
        assert code == 1008
        assert next(iter(query)) in reason


async def test_a_large_snapshot_comes_in_parts_of_which_the_last_has_the_place(world: World) -> None:
    robots = [f"r-{number}" for number in range(1_000)]
    for robot_id in robots:
        await world.fleet.administer(RegisterRobot(RobotSpec(robot_id=robot_id)))
    async with world.open("robot-status", since="") as socket:
        await opened(socket)
        first = await hear(socket)
        assert first["data"]["parts"] > 2
        assert first["data"]["part"] == 1
        assert first["epoch"] is None
        after, items = await snapshot(socket)
        ids = [item["robot_id"] for item in first["data"]["items"] + items]
        assert sorted(ids) == sorted(robots)
        await happen(world, "robot-status", 1_001)
        assert (await hear(socket))["offset"] == int(after.split(":")[1]) + 1


async def test_a_snapshot_that_leaves_live_jobs_out_says_so() -> None:
    fleet = LocalFleet(quick_limits(max_snapshot_jobs=8))
    async with served(fleet) as world, world.http() as http:
        done = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        await http.post(f"/jobs/{done}/cancel")
        names = [(await http.post("/jobs", json={"name": "weld"})).json()["job_id"] for _ in range(9)]
        async with world.open("live-jobs", since="") as socket:
            await opened(socket)
            data = (await hear(socket))["data"]
    assert not data["complete"]
    assert [item["job_id"] for item in data["items"]] == [done, *names[2:]]
    await fleet.close()


async def test_a_robot_that_was_deleted_is_offline_in_the_latest_state(world: World) -> None:
    async with world.http() as http:
        for robot_id in ("r-1", "r-2"):
            await http.post("/robots/register", json={"robot_id": robot_id})
        await http.delete("/robots/r-1")
    async with world.open("robot-status", since="") as socket:
        await opened(socket)
        _, items = await snapshot(socket)
    assert {item["robot_id"]: item["status"] for item in items} == {"r-1": "offline", "r-2": "idle"}


# -- holes that the door itself finds


@pytest.mark.parametrize("stream", STREAMS)
async def test_when_history_is_lost_everybody_gets_the_latest_state_and_goes_on(
    world: World, stream: str
) -> None:
    await happen(world, stream, 1)
    async with world.open(stream) as plain, world.open(stream, v=2) as numbered:
        hello = await opened(numbered)
        if stream == "queue-metrics":
            await hear(plain)
            await snapshot(numbered)
        begin_anew(world, stream)
        await gap(numbered, "unknown")
        after, items = await snapshot(numbered)
        assert after == "another:0"
        assert [await hear(plain)] == items
        await happen(world, stream, 2)
        event = await hear(numbered)
        assert place(event) == "another:1"
        assert await hear(plain) == event["data"]
        async with world.open(stream, since=place(hello)) as late:
            assert (await hear(late))["data"] == {"recovered": False}
            await gap(late, "unknown")
        async with world.open(stream, since=after) as early:
            assert (await opened(early))["data"] == {"recovered": True}
            assert await hear(early) == event


async def test_a_door_that_fell_behind_what_is_kept_says_so() -> None:
    fleet = LaggingFleet(quick_limits(feed_events=20, max_batch=20))
    async with served(fleet) as world, world.http() as http, world.open("live-jobs", v=2) as socket:
        start = await opened(socket)
        fleet.hold("live-jobs")
        jobs = [(await http.post("/jobs", json={"name": "weld"})).json()["job_id"] for _ in range(60)]
        fleet.release()
        assert (await until(socket, lambda m: m["type"] == "gap"))["data"] == {"reason": "expired"}
        _, items = await snapshot(socket)
        assert [item["job_id"] for item in items] == jobs
        await happen(world, "live-jobs", 1)
        event = await hear(socket)
        while event["data"]["job_id"] in jobs:  # those that are kept come as well, or not: the state has them
            event = await hear(socket)
        assert event["offset"] == start["offset"] + 61
    await fleet.close()


class LaggingFleet(LocalFleet):
    """A fleet that the door hears of late: reads that continue wait until they are let go."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.held = ""
        self.free = asyncio.Event()
        self.free.set()

    def hold(self, feed: str) -> None:
        self.held = feed
        self.free.clear()

    def release(self) -> None:
        self.free.set()

    async def read(self, feed: str, epoch: str, offset: int, wait_ms: int) -> Page:
        if epoch and feed == self.held:
            await self.free.wait()
        page = await super().read(feed, epoch, offset, wait_ms)
        if epoch and feed == self.held:
            await self.free.wait()
        return page


class SecondDoor(LaggingFleet):
    """Of a fleet that another door serves too."""

    def __init__(self, first: LocalFleet) -> None:
        self.rooms = first.rooms
        FleetClient.__init__(self, first.rooms, first.limits)
        self.held = ""
        self.free = asyncio.Event()
        self.free.set()

    async def close(self) -> None:
        await FleetClient.close(self)


@pytest.fixture
async def second(world: World) -> AsyncIterator[tuple[World, SecondDoor]]:
    fleet = SecondDoor(world.fleet)
    async with served(fleet) as other:
        yield other, fleet
    await fleet.close()


@pytest.mark.parametrize("late", [False, True], ids=["level", "behind"])
async def test_a_watcher_continues_at_another_door_even_if_that_is_behind(
    world: World, second: tuple[World, SecondDoor], late: bool
) -> None:
    other, fleet = second
    if late:
        fleet.hold("live-jobs")
    async with world.open("live-jobs", v=2) as socket:
        await opened(socket)
        await happen(world, "live-jobs", 1)
        last = await hear(socket)
    async with other.open("live-jobs", since=place(last)) as socket:
        hello = await opened(socket)
        assert (place(hello), hello["data"]) == (place(last), {"recovered": True})
        fleet.release()
        await happen(world, "live-jobs", 2)
        assert (await hear(socket))["offset"] == last["offset"] + 1


async def test_a_door_that_starts_late_knows_what_was_said_before(world: World) -> None:
    async with world.open("live-jobs", v=2) as socket:
        start = await opened(socket)
    for number in range(3):
        await happen(world, "live-jobs", number)
    async with (
        fresh(fleet=world.fleet) as other,
        other.open("live-jobs", since=place(start)) as socket,
    ):
        assert (await opened(socket))["data"] == {"recovered": True}
        assert [(await hear(socket))["offset"] for _ in range(3)] == [start["offset"] + n for n in (1, 2, 3)]


async def test_two_doors_tell_an_event_once_and_under_the_same_place(
    world: World, second: tuple[World, SecondDoor]
) -> None:
    other, _ = second
    async with world.open("robot-status", v=2) as one, other.open("robot-status", v=2) as two:
        assert place(await opened(one)) == place(await opened(two))
        for number in range(3):
            await happen(world, "robot-status", number)
        assert [await hear(one) for _ in range(3)] == [await hear(two) for _ in range(3)]


# -- crowds, and those who wait


class SlowState(LocalFleet):
    """Whose latest state comes when it is let, and fails before that if told to."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.asked = asyncio.Event()
        self.free = asyncio.Event()
        self.failures = 0
        self.taken = 0

    async def state_of(self, feed: str) -> FeedState:
        self.asked.set()
        if self.failures:
            self.failures -= 1
            raise Unavailable("no answer from the fleet", "", 1.0)
        await self.free.wait()
        self.taken += 1
        return await super().state_of(feed)


@pytest.fixture
async def slow_state() -> AsyncIterator[SlowState]:
    fleet = SlowState(quick_limits())
    yield fleet
    await fleet.close()


async def test_a_crowd_that_comes_back_costs_one_snapshot(
    slow_state: SlowState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.recovery.SNAPSHOT_EVERY_S", 600)
    async with served(slow_state) as world, contextlib.AsyncExitStack() as stack:
        await slow_state.execute(Submit(["j"], [JobSpec(name="weld")]))
        crowd = [
            await stack.enter_async_context(world.open("live-jobs", since=f"gone:{number}"))
            for number in range(150)
        ]
        slow_state.free.set()
        crowd += [await stack.enter_async_context(world.open("live-jobs", since="gone:1")) for _ in range(50)]
        for socket in crowd:
            await opened(socket)
            await gap(socket, "unknown")
            assert [item["job_id"] for item in (await snapshot(socket))[1]] == ["j"]
        counts = await world.connections()
    assert (slow_state.taken, counts["snapshots"], counts["connections"]["live-jobs"]) == (1, 1, 200)


async def test_who_waits_for_the_latest_state_is_heard_and_may_leave(slow_state: SlowState) -> None:
    async with served(slow_state) as world:
        async with world.open("live-jobs", since="gone:1") as socket:
            await opened(socket)
            await gap(socket, "unknown")
            await slow_state.asked.wait()
            await socket.send("ping")
            assert await socket.recv() == "pong"
            assert await world.watching() == 1
        while await world.watching():
            pass
        slow_state.free.set()


async def test_the_latest_state_comes_once_the_fleet_can_tell_it(
    slow_state: SlowState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.recovery.SNAPSHOT_EVERY_S", 0.01)
    slow_state.failures = 3
    slow_state.free.set()
    async with served(slow_state) as world, world.open("live-jobs", since="") as socket:
        await opened(socket)
        assert (await snapshot(socket))[1] == []
        assert slow_state.failures == 0
        await happen(world, "live-jobs", 1)
        assert (await hear(socket))["type"] == TYPES["live-jobs"]


async def test_what_happens_while_the_latest_state_is_taken_comes_after_it(slow_state: SlowState) -> None:
    async with served(slow_state) as world, world.open("live-jobs", since="") as socket:
        await opened(socket)
        await slow_state.asked.wait()
        await happen(world, "live-jobs", 1)
        slow_state.free.set()
        after, [job] = await snapshot(socket)
        event = await hear(socket)
    assert (event["data"], event["offset"]) == (job, int(after.split(":")[1]) + 1)


async def test_a_watcher_that_missed_megabytes_gets_them_all(world: World) -> None:
    source = world.fleet.rooms.job_store._events
    filler = "x" * 900
    async with world.open("live-jobs", v=2) as witness:
        start = await opened(witness)
        for number in range(10):
            source.publish([b'{"n":%d,"x":"%s"}' % (number * 500 + n, filler.encode()) for n in range(500)])
            await until(witness, lambda message: message["data"]["n"] % 500 == 499)
    async with world.open("live-jobs", since=place(start)) as socket:
        assert (await opened(socket))["data"] == {"recovered": True}
        assert [(await hear(socket))["data"]["n"] for _ in range(5_000)] == list(range(5_000))
    assert (await world.connections())["slow_disconnects"] == 0


async def test_counts_tell_who_continued(world: World) -> None:
    async with world.open("live-jobs", v=2) as socket:
        start = place(await opened(socket))
    async with world.open("live-jobs", since=start) as socket:
        await opened(socket)
        counts = await world.connections()
    assert (counts["resumed"], counts["gaps"], counts["snapshots"]) == (1, 0, 0)
