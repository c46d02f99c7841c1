"""The fleet as a door sees it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from actors.batching import Batcher, outcome_of
from actors.broadcaster import Broadcaster
from actors.claims import Claims
from actors.health import PULSE_S, STATES, Lives, State
from actors.heartbeats import Heartbeats
from actors.job_store import JobStoreRoom
from actors.lanes import Lanes
from actors.ray_room import RayRoom
from actors.registry import RegistryRoom
from fleet.dead_letters import DeadLetterFilter, Redrive, Redriven
from fleet.events import LIVE_JOBS, ROBOT_STATUS, QueueDepthChanged, encode
from fleet.explain import Explanation, Place, Suited, explain
from fleet.feed import Page
from fleet.fleet_metrics import FleetMetrics, fleet_metrics
from fleet.job import Job, JobStatus
from fleet.job_record import HistoryEvent, JobFilter
from fleet.keys import ApiKey, KeyRecord
from fleet.limits import Limits
from fleet.messages import (
    Announce,
    AnnounceDepth,
    AnnounceRobot,
    Answer,
    Beat,
    BeginDeletion,
    Cancel,
    Command,
    Get,
    HeartbeatAnswer,
    JobCounts,
    JobToken,
    Once,
    RegisterRobot,
    RegistryCommand,
    RobotCounts,
    SetRobotStatus,
    UpdateRobot,
)
from fleet.occupancy import Occupancy
from fleet.robot import Robot
from fleet.stream_messages import FeedState
from fleet.wall_time import rfc3339

log = logging.getLogger("fleetcast.client")

Named = TypeVar("Named", bound=Once)


class Rooms(msgspec.Struct):
    """Plain objects in one process, or actors that look like them."""

    job_store: JobStoreRoom
    registry: RegistryRoom
    broadcasters: Mapping[str, Broadcaster]

    def close_wires(self) -> None:
        rooms: list[Any] = [self.job_store, self.registry, *self.broadcasters.values()]
        for room in rooms:
            if isinstance(room, RayRoom):
                room.close_wire()


def ray_rooms(job_store: RayRoom, registry: RayRoom, broadcasters: Mapping[str, RayRoom]) -> Rooms:
    return Rooms(
        cast(JobStoreRoom, job_store),
        cast(RegistryRoom, registry),
        cast(Mapping[str, Broadcaster], broadcasters),
    )


class Snapshot:
    """Both halves of the metrics snapshot; picklable, for the broadcaster that polls it."""

    def __init__(self, job_store: JobStoreRoom, registry: RegistryRoom, version: str) -> None:
        self._job_store = job_store
        self._registry = registry
        self._version = version

    async def __call__(self) -> FleetMetrics:
        return fleet_metrics(*await self.counts(), self._version)

    async def counts(self) -> tuple[RobotCounts, JobCounts]:
        return await asyncio.gather(self._registry.counts(), self._job_store.counts())


def _named(command: Named) -> Named:
    """With a request id: the call may be made again."""
    if command.request_id:
        return command
    return msgspec.structs.replace(command, request_id=secrets.token_hex(8))


class FleetClient:
    """One per door. Futures, not coroutines, where messages arrive by the thousand: no task each."""

    def __init__(self, rooms: Rooms, limits: Limits, version: str = "") -> None:
        self.limits = limits
        self._rooms = rooms
        self._snapshot = Snapshot(rooms.job_store, rooms.registry, version)
        size, bound = limits.max_batch, limits.max_backlog
        self._lanes = Lanes(rooms.job_store, limits)
        self._registry: Batcher[RegistryCommand, Any] = Batcher(self._send_registry, size, bound)
        self._heartbeats = Heartbeats(rooms.job_store, rooms.registry, limits)
        self._lives = (Lives(rooms.job_store.pulse), Lives(rooms.registry.pulse))
        self._claims = Claims(rooms.job_store, rooms.registry, limits, self._lanes.put)

    @property
    def state(self) -> State:
        """The worst of what `watch_rooms` has seen last."""
        now = time.monotonic()
        return max((lives.state(now) for lives in self._lives), key=STATES.index)

    async def watch_rooms(self) -> None:
        """For ever: looks whether the rooms answer, and how often they begin anew."""
        while True:
            await asyncio.gather(*(lives.feel() for lives in self._lives))
            await asyncio.sleep(PULSE_S)

    def on_cancel(self, hear: Callable[[str, str], None]) -> None:
        """`hear(robot_id, job_id)` when a job that this door granted is to stop."""
        self._claims.on_cancel = hear

    # -- messages, batched

    def execute(self, command: Command) -> asyncio.Future[Any]:
        return self._lanes.put(_named(command) if isinstance(command, Cancel) else command)

    def administer(self, command: RegistryCommand) -> asyncio.Future[Any]:
        done = self._registry.put(_named(command) if isinstance(command, Once) else command)
        match command:
            case RegisterRobot(spec=spec) | UpdateRobot(spec=spec):
                done.add_done_callback(lambda _: self._claims.forget_admission(spec.robot_id))
            case SetRobotStatus(robot_id=robot_id) | BeginDeletion(robot_id=robot_id):
                done.add_done_callback(lambda _: self._claims.forget_admission(robot_id))
        return done

    def heartbeat(self, beat: Beat, jobs: list[JobToken]) -> asyncio.Future[HeartbeatAnswer]:
        return self._heartbeats.put(beat, jobs)

    def claim(self, robot_id: str, request_id: str, limit: int, wait_ms: int) -> asyncio.Future[Answer]:
        return self._claims.claim(robot_id, request_id, limit, wait_ms)

    def withdraw(self, robot_id: str, request_id: str, claim: asyncio.Future[Answer]) -> None:
        self._claims.withdraw(robot_id, request_id, claim)

    # -- reads

    async def read(self, feed: str, epoch: str, offset: int, wait_ms: int) -> Page:
        room = self._rooms.broadcasters[feed]
        return await room.read(epoch, offset, self.limits.max_batch, wait_ms)

    async def state_of(self, feed: str) -> FeedState:
        """The latest event of each robot or job; of queue-metrics the depth."""
        if feed == ROBOT_STATUS:
            return await self._rooms.registry.state()
        if feed == LIVE_JOBS:
            return await self._rooms.job_store.state()
        counts = await self._rooms.job_store.counts()
        return FeedState([encode(QueueDepthChanged(counts.depth, rfc3339(time.time_ns())))])

    # -- events that somebody else's jobs and robots made

    async def announce_job(self, job_id: str, status: str) -> None:
        await self.execute(Announce(secrets.token_hex(8), job_id, JobStatus(status)))

    async def announce_robot(self, robot_id: str, status: str, cpu_percent: float, memory_mb: float) -> None:
        await self.administer(AnnounceRobot(robot_id, status, cpu_percent, memory_mb))

    async def announce_depth(self, depth: int) -> None:
        await self.execute(AnnounceDepth(depth, request_id=secrets.token_hex(8)))

    # -- lists

    async def jobs(self, wanted: JobFilter, before: int, limit: int) -> tuple[list[Job], int]:
        return await self._rooms.job_store.page(wanted, before, limit)

    async def history(self, job_id: str, skip: int = 0, limit: int = 1_000) -> list[HistoryEvent]:
        """Without the first `skip`; empty for a job that does not exist."""
        return await self._rooms.job_store.history(job_id, skip, limit)

    async def explain(self, job_id: str) -> Explanation:
        job: Job = await self.execute(Get(job_id))
        if job.status is not JobStatus.PENDING:
            return explain(Place(job), Suited())
        suited = await self._rooms.registry.suited(job.environment, job.required_capabilities)
        place = await self._rooms.job_store.place(job_id, [robot.robot_id for robot in suited.able])
        return explain(place, suited)

    async def dead_letters(self, wanted: DeadLetterFilter, place: int, limit: int) -> tuple[list[Job], int]:
        found = await self._rooms.job_store.dead_letters(wanted, place, limit)
        return [record.job for record in found.records], found.place

    async def redrive(self, command: Redrive) -> Redriven:
        return await self._rooms.job_store.redrive(_named(command))

    async def robots(
        self, status: str | None, environment: str | None, limit: int, offset: int
    ) -> tuple[list[Robot], int]:
        return await self._rooms.registry.page(status, environment, limit, offset)

    async def keys(self) -> list[KeyRecord]:
        return await self._rooms.registry.keys()

    async def key_page(self, robot_id: str | None, before: int, limit: int) -> tuple[list[ApiKey], int]:
        return await self._rooms.registry.key_page(robot_id, before, limit)

    async def metrics(self) -> FleetMetrics:
        return await self._snapshot()

    async def counts(self) -> tuple[RobotCounts, JobCounts]:
        return await self._snapshot.counts()

    async def exchange_occupancy(self, door: str, held: Occupancy) -> Occupancy:
        """Tells what `door` holds; returns the sum of what the other doors do."""
        return await self._rooms.registry.exchange_occupancy(door, held)

    async def close(self) -> None:
        await self._claims.close()
        await self._heartbeats.close()
        await self._lanes.close()
        await self._registry.close()
        self._rooms.close_wires()

    # -- one call per batch

    async def _send_registry(self, commands: Sequence[RegistryCommand]) -> Sequence[Any]:
        return [outcome_of(reply) for reply in await self._rooms.registry.execute(commands)]
