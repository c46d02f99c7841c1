"""Knows every robot: who it is, when it was last heard, what state it is in.

Owns      robots, their sessions and heartbeats
Hears     registrations, heartbeats, maintenance, drain, tick
Says      robot-status events, one per accepted heartbeat
Survives  restart: what its journal kept; nobody is offline before one full heartbeat timeout
Never     calls the job store; journals a heartbeat
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from actors.journal import MemoryJournal
from actors.publisher import Publisher, Publishes
from fleet.errors import FleetError
from fleet.limits import Limits
from fleet.messages import (
    AdmitClaim,
    Beat,
    BeatReply,
    CloseSession,
    DeleteRobot,
    GetRobot,
    OpenSession,
    Refusal,
    RegisterRobot,
    RegistryCommand,
    RobotCounts,
    SetRobotStatus,
    UpdateRobot,
)
from fleet.registry import RobotRegistry
from fleet.robot import Robot


class RegistryRoom:
    def __init__(self, limits: Limits, robot_status: Publishes) -> None:
        self._limits = limits
        self._core = RobotRegistry(limits)
        self._journal = MemoryJournal(lambda records: None)
        self._events = Publisher(robot_status, limits)
        self._run = asyncio.get_running_loop().create_task(self._tick())

    async def heartbeats(self, beats: Sequence[Beat]) -> list[BeatReply]:
        replies = self._core.heartbeats(beats, time.monotonic_ns(), time.time_ns())
        self._publish()
        return replies

    async def execute(self, commands: Sequence[RegistryCommand]) -> list[Any]:
        """One reply per command, in order; a refusal is a reply."""
        replies = [self._one(command) for command in commands]
        changes = [
            command
            for command in commands
            if isinstance(command, RegisterRobot | UpdateRobot | SetRobotStatus | DeleteRobot)
        ]
        await self._journal.committed(self._journal.append(changes))
        self._publish()
        return replies

    async def page(
        self, status: str | None, environment: str | None, limit: int, offset: int
    ) -> tuple[list[Robot], int]:
        return self._core.page(status, environment, limit, offset)

    async def counts(self) -> RobotCounts:
        return self._core.counts()

    def _one(self, command: RegistryCommand) -> Any:
        try:
            return self._decide(command, time.monotonic_ns(), time.time_ns())
        except FleetError as error:
            return Refusal(type(error).__name__, error.detail, error.code, error.retry_after_s)

    def _decide(self, command: RegistryCommand, now_ns: int, wall_ns: int) -> Any:
        match command:
            case OpenSession():
                return self._core.open(command.robot_id, command.session)
            case CloseSession():
                return self._core.close(command.robot_id, command.session)
            case RegisterRobot():
                return self._core.register(command.spec, command.session, now_ns, wall_ns)
            case UpdateRobot():
                return self._core.update(command.spec)
            case AdmitClaim():
                return self._core.admit(command.robot_id)
            case SetRobotStatus():
                return self._core.set_status(command.robot_id, command.maintenance, command.draining, wall_ns)
            case DeleteRobot():
                return self._core.delete(command.robot_id)
            case GetRobot():
                return self._core.get(command.robot_id)

    def _publish(self) -> None:
        events = self._core.take_events()
        if events:
            self._events.publish(events)

    async def _tick(self) -> None:
        while True:
            self._core.expire(time.monotonic_ns(), time.time_ns())
            self._publish()
            await asyncio.sleep(self._limits.tick_ms / 1_000)
