"""The event bus within one process, and beside a fleet on real Ray."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from conftest import World, hear, served, until

import fleetcast
from actors.event_bus import MAX_WAITING, EventBus
from actors.supervisor import Supervisor
from api import broadcasts
from api.routers.websockets import (
    broadcast_job_update,
    broadcast_queue_metrics,
    broadcast_robot_status,
    on_job_status_changed,
    on_queue_depth_changed,
    on_robot_heartbeat,
)
from fleet.errors import Misuse
from fleet.events import LIVE_JOBS, QUEUE_METRICS, ROBOT_STATUS, MonitoringEvent, MonitoringEventType

JOB = MonitoringEventType.JOB_STATUS_CHANGED
ROBOT = MonitoringEventType.ROBOT_HEARTBEAT
DEPTH = MonitoringEventType.QUEUE_DEPTH_CHANGED


def job_event(number: int = 0) -> MonitoringEvent:
    return MonitoringEvent(JOB, {"job_id": f"job-{number}", "status": "completed"})


class Ear:
    """A handler that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[MonitoringEvent] = asyncio.Queue()

    async def __call__(self, event: MonitoringEvent) -> None:
        await self.heard.put(event)

    async def next(self) -> MonitoringEvent:
        return await asyncio.wait_for(self.heard.get(), 20)

    async def until(self, **payload: Any) -> MonitoringEvent:
        while not payload.items() <= (event := await self.next()).payload.items():
            pass
        return event


async def test_a_handler_hears_its_kind_in_order_until_it_ends_that() -> None:
    bus, ear, other = EventBus(), Ear(), Ear()
    end = bus.subscribe(JOB, ear)
    bus.subscribe(ROBOT, other)
    for number in range(100):
        bus.publish(job_event(number))
    assert [(await ear.next()).payload["job_id"] for _ in range(100)] == [f"job-{n}" for n in range(100)]
    end()
    end()
    bus.publish(job_event())
    bus.publish(MonitoringEvent(ROBOT, {"robot_id": "r"}))
    assert (await other.next()).payload == {"robot_id": "r"}
    assert ear.heard.empty()


async def test_an_error_of_one_handler_is_logged_and_reaches_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, ear = EventBus(), Ear()

    def broken(event: MonitoringEvent) -> None:
        raise RuntimeError("mine")

    bus.subscribe(JOB, broken)
    bus.subscribe(JOB, ear)
    with caplog.at_level(logging.ERROR, "fleetcast.event_bus"):
        for number in range(2):
            bus.publish(job_event(number))
            await ear.next()
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("mine",)] * 2  # type: ignore[union-attr]


async def test_a_slow_handler_misses_its_oldest_events_and_holds_up_nobody() -> None:
    bus, ear, gate = EventBus(), Ear(), asyncio.Event()
    slow = Ear()

    async def wait(event: MonitoringEvent) -> None:
        await gate.wait()
        await slow(event)

    bus.subscribe(JOB, wait)
    bus.subscribe(JOB, ear)
    bus.publish(job_event(0))
    await ear.next()
    for number in range(1, MAX_WAITING + 3):
        bus.publish(job_event(number))
    for _ in range(MAX_WAITING):
        await ear.next()
    gate.set()
    seen = [(await slow.next()).payload["job_id"] for _ in range(MAX_WAITING + 1)]
    assert (seen[0], seen[1], seen[-1]) == ("job-0", "job-3", f"job-{MAX_WAITING + 2}")


def test_without_an_event_loop_handlers_run_on_one_of_the_bus() -> None:
    bus, done, heard = EventBus(), threading.Event(), []

    def hear_it(event: MonitoringEvent) -> None:
        heard.append((event.payload["job_id"], threading.current_thread().name))
        done.set()

    bus.subscribe(JOB, hear_it)
    bus.publish(job_event(7))
    assert done.wait(10)
    assert heard == [("job-7", "fleetcast")]


# -- without a fleet


@pytest.mark.parametrize(
    "broadcast",
    [
        lambda: broadcast_job_update(job_id="j", status="completed"),
        lambda: broadcast_robot_status(robot_id="r", status="busy", cpu_percent=1.0, memory_mb=1.0),
        lambda: broadcast_queue_metrics(depth=1),
        lambda: on_job_status_changed(job_event()),
    ],
)
async def test_a_broadcast_without_an_attachment_says_what_to_do(broadcast: Any) -> None:
    with pytest.raises(Misuse, match=r"fleetcast.attach\(address=...\)"):
        await broadcast()


class Nobody:
    """An announcer that must not be reached."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given: pytest.fail(f"{name} was called")


@pytest.fixture
def nobody() -> Iterator[None]:
    broadcasts.attach(Nobody())
    yield
    broadcasts.detach()


@pytest.mark.parametrize(
    ("broadcast", "names"),
    [
        (lambda: broadcast_job_update(job_id="", status="completed"), "job_id"),
        (lambda: broadcast_job_update(job_id="j", status="done"), "status"),
        (lambda: broadcast_robot_status(robot_id="r r", status="busy"), "robot_id"),
        (lambda: broadcast_robot_status(robot_id="r", status="happy"), "status"),
        (lambda: broadcast_robot_status("r", "busy", float("nan"), 0.0), "cpu_percent"),
        (lambda: broadcast_robot_status("r", "busy", 0.0, -1.0), "memory_mb"),
        (lambda: broadcast_queue_metrics(depth=-1), "depth"),
        (lambda: on_job_status_changed(MonitoringEvent(JOB, {"job_id": "j"})), "status"),
    ],
)
async def test_a_senseless_broadcast_is_a_misuse_that_names_the_field(
    nobody: None, broadcast: Any, names: str
) -> None:
    with pytest.raises(Misuse, match=names):
        await broadcast()


async def test_what_comes_from_the_fleet_is_not_broadcast_again(nobody: None) -> None:
    for handler, kind, payload in (
        (on_job_status_changed, JOB, {"job_id": "j", "status": "failed"}),
        (on_robot_heartbeat, ROBOT, {"robot_id": "r"}),
        (on_queue_depth_changed, DEPTH, {"depth": 3}),
    ):
        await handler(MonitoringEvent(kind, payload, "", "fleet"))


# -- beside a fleet


@pytest.fixture
async def attached(supervisor: Supervisor) -> AsyncIterator[World]:
    fleet = await asyncio.to_thread(supervisor.client)
    async with served(fleet) as world:
        with fleetcast.attach(namespace=supervisor.namespace):
            world.namespace = supervisor.namespace
            yield world
    await fleet.close()


async def test_broadcasts_reach_the_watchers(attached: World) -> None:
    async with (
        attached.open(LIVE_JOBS) as jobs,
        attached.open(ROBOT_STATUS) as robots,
        attached.open(QUEUE_METRICS) as depths,
    ):
        assert (await hear(depths))["depth"] == 0
        await broadcast_job_update(job_id="job-12345", status="completed")
        await broadcast_robot_status(robot_id="robot-001", status="busy", cpu_percent=45.2, memory_mb=1024.5)
        await broadcast_queue_metrics(depth=42)
        job, robot = await hear(jobs), await hear(robots)
        await until(depths, lambda event: event["depth"] == 42)
        async with attached.open(QUEUE_METRICS) as late:
            assert (await hear(late))["depth"] == 0
    assert list(job.items())[:2] == [("job_id", "job-12345"), ("status", "completed")]
    assert list(robot.values())[:4] == ["robot-001", "busy", 45.2, 1024.5]


async def test_the_bus_hears_the_fleet_and_its_handlers_broadcast_what_is_published_once(
    attached: World,
) -> None:
    ear = Ear()
    bus = fleetcast.event_bus
    ends = [bus.subscribe(kind, ear) for kind in (JOB, ROBOT, DEPTH)]
    ends.append(bus.subscribe(JOB, on_job_status_changed))
    try:
        async with attached.open(LIVE_JOBS) as jobs, attached.http() as http:
            await http.post("/robots/register", json={"robot_id": "r"})
            while ear.heard.empty():  # the bus has found its place in the feed once a beat is heard
                await http.post("/robots/r/heartbeat", json={"cpu_percent": 1.5})
            assert (await ear.until(robot_id="r", status="idle")).source == "fleet"
            bus.publish(job_event(5))
            assert (await ear.until(job_id="job-5")).source == ""
            made = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
            seen = [await hear(jobs) for _ in range(2)]
    finally:
        for end in ends:
            end()
    assert {event["job_id"] for event in seen} == {"job-5", made}


async def test_a_process_is_attached_once_and_to_a_fleet_that_runs(attached: World) -> None:
    with pytest.raises(Misuse, match="attached to a fleet already"):
        fleetcast.attach(namespace=attached.namespace)
    await broadcast_queue_metrics(depth=1)
    with pytest.raises(Misuse, match="no fleet runs"):
        fleetcast.attach(namespace="nowhere")


async def test_a_broadcast_works_from_any_event_loop(attached: World) -> None:
    async with attached.open(LIVE_JOBS) as jobs:
        for number in range(3):
            update = broadcast_job_update(job_id=f"job-{number}", status="running")
            await asyncio.to_thread(asyncio.run, update)
        assert [(await hear(jobs))["job_id"] for _ in range(3)] == ["job-0", "job-1", "job-2"]
