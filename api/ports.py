"""What the doors need of the fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, Protocol

from fleet.dead_letters import DeadLetterFilter, Redrive, Redriven
from fleet.explain import Explanation
from fleet.feed import Page
from fleet.job import Job
from fleet.job_record import HistoryEvent, JobFilter
from fleet.keys import ApiKey, KeyRecord
from fleet.limits import Limits
from fleet.messages import (
    Answer,
    Beat,
    Command,
    HeartbeatAnswer,
    JobCounts,
    JobToken,
    RegistryCommand,
    RobotCounts,
)
from fleet.occupancy import Occupancy
from fleet.robot import Robot
from fleet.stream_messages import FeedState


class Fleet(Protocol):
    """All calls raise (or their futures hold) a FleetError when they fail."""

    limits: Limits

    @property
    def state(self) -> Literal["ok", "down", "crash_loop"]: ...

    async def watch_rooms(self) -> None: ...

    def on_cancel(self, hear: Callable[[str, str], None]) -> None: ...

    def execute(self, command: Command) -> asyncio.Future[Any]: ...

    def administer(self, command: RegistryCommand) -> asyncio.Future[Any]: ...

    def heartbeat(self, beat: Beat, jobs: list[JobToken]) -> asyncio.Future[HeartbeatAnswer]: ...

    def claim(self, robot_id: str, request_id: str, limit: int, wait_ms: int) -> asyncio.Future[Answer]: ...

    def withdraw(self, robot_id: str, request_id: str, claim: asyncio.Future[Answer]) -> None: ...

    async def read(self, feed: str, epoch: str, offset: int, wait_ms: int) -> Page: ...

    async def state_of(self, feed: str) -> FeedState: ...

    async def jobs(self, wanted: JobFilter, before: int, limit: int) -> tuple[list[Job], int]: ...

    async def history(self, job_id: str, skip: int = 0, limit: int = 1_000) -> list[HistoryEvent]: ...

    async def explain(self, job_id: str) -> Explanation: ...

    async def dead_letters(
        self, wanted: DeadLetterFilter, place: int, limit: int
    ) -> tuple[list[Job], int]: ...

    async def redrive(self, command: Redrive) -> Redriven: ...

    async def robots(
        self, status: str | None, environment: str | None, limit: int, offset: int
    ) -> tuple[list[Robot], int]: ...

    async def keys(self) -> list[KeyRecord]: ...

    async def key_page(self, robot_id: str | None, before: int, limit: int) -> tuple[list[ApiKey], int]: ...

    async def counts(self) -> tuple[RobotCounts, JobCounts]: ...

    async def exchange_occupancy(self, door: str, held: Occupancy) -> Occupancy: ...

    async def close(self) -> None: ...
