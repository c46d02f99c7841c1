"""Knows every robot: who it is, when it was last heard, what state it is in, with which keys it comes.

Owns      robots, their sessions and heartbeats; the hashes of API keys; what each door says of its sockets
Hears     registrations, heartbeats, maintenance, drain, keys issued, rotated and revoked, occupancy, tick
Says      robot-status events, one per accepted heartbeat; changes of the key table
Survives  restart: what its journal kept; nobody is offline before one full heartbeat timeout; doors say
          again what they hold
Never     calls the job store; journals a heartbeat
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any

from actors import registry_documents
from actors.active_clock import ActiveClock
from actors.batching import refusal_of
from actors.document_tables import Document
from actors.journal import Journal, commit
from actors.publisher import Publisher, Publishes
from actors.stores import MEMORY, document_tables, opened
from actors.upkeep import Upkeep
from actors.wire import Reachable
from fleet.events import encode
from fleet.explain import Suited
from fleet.feed import FeedHistory
from fleet.keys import ApiKey, KeyRecord, KeyTable
from fleet.limits import Limits
from fleet.messages import (
    AdmitClaim,
    AnnounceRobot,
    Beat,
    BeatReply,
    BeginDeletion,
    CloseSession,
    DeleteRobot,
    GetRobot,
    GiveUpDeletion,
    IssueKey,
    Once,
    OpenSession,
    RegisterRobot,
    RegistryCommand,
    RevokeKey,
    RobotCounts,
    RotateKey,
    SetRobotStatus,
    UpdateRobot,
)
from fleet.occupancy import Occupancy, OccupancyTable
from fleet.registry import RobotRegistry
from fleet.replies import Replies
from fleet.robot import Robot
from fleet.stream_messages import FeedState

log = logging.getLogger("fleetcast.registry")


class RegistryRoom(Reachable):
    def __init__(
        self,
        limits: Limits,
        robot_status: Publishes,
        keys: Publishes,
        store: str = MEMORY,
        fleet: str = "fleetcast",
    ) -> None:
        self._limits = limits
        self._core = RobotRegistry(limits)
        self._keys = KeyTable(limits)
        self._occupancy = OccupancyTable(limits)
        self._replies = Replies(limits.max_remembered)
        self._tables = document_tables(store, fleet)
        clock_ns, documents = opened(self._tables.open)
        self._clock = ActiveClock(clock_ns)
        self._tables.now_ns = lambda: self._clock.now_ns
        self._journal = Journal(self._tables, lambda records: None)
        self._restore(documents)
        self._life = secrets.token_hex(6)
        self._events = Publisher(robot_status, limits, FeedHistory(self._life))
        self._key_events = Publisher(keys, limits, FeedHistory(self._life))
        self._run = asyncio.get_running_loop().create_task(self._tick())
        self._upkeep = Upkeep(self._journal, self._tables, limits)

    def _restore(self, documents: Sequence[Document]) -> None:
        found = registry_documents.registered(documents)
        self._core.restore(found.robots, self._clock.now_ns)
        self._keys.restore(found.keys)
        self._deletions = registry_documents.Deletions(found.deletions)
        for request_id in self._deletions:
            self._replies.keep(request_id, None)

    async def heartbeats(self, beats: Sequence[Beat]) -> list[BeatReply]:
        replies = self._core.heartbeats(beats, self._clock.tick(), time.time_ns())
        await self._commit()
        return replies

    async def execute(self, commands: Sequence[RegistryCommand]) -> list[Any]:
        """One reply per command, in order; a refusal is a reply. All wait for the commit."""
        replies = [self._one(command) for command in commands]
        await self._commit()
        return replies

    async def keys(self) -> list[KeyRecord]:
        """The whole table, for a door that follows its changes from a place it took before this call."""
        records = self._keys.records()
        await self._commit()
        return records

    async def key_page(self, robot_id: str | None, before: int, limit: int) -> tuple[list[ApiKey], int]:
        found = self._keys.page(robot_id, before, limit)
        await self._commit()
        return found

    async def page(
        self, status: str | None, environment: str | None, limit: int, offset: int
    ) -> tuple[list[Robot], int]:
        found = self._core.page(status, environment, limit, offset)
        await self._commit()
        return found

    async def pulse(self) -> str:
        """A name of this life of the actor."""
        return self._life

    async def suited(self, environment: str | None, capabilities: Sequence[str]) -> Suited:
        found = self._core.suited(environment, capabilities)
        await self._commit()
        return found

    async def state(self) -> FeedState:
        """The last event of every robot, and of those that were deleted last."""
        said = self._core.latest()
        await self._commit()
        return FeedState(said)

    async def counts(self) -> RobotCounts:
        counts = self._core.counts()
        await self._commit()
        return counts

    async def exchange_occupancy(self, door: str, held: Occupancy) -> Occupancy:
        """What the other doors hold. No fact of the fleet: nothing waits for the journal."""
        return self._occupancy.exchange(door, held, time.monotonic_ns())

    def _one(self, command: RegistryCommand) -> Any:
        def decide() -> Any:
            return self._decide(command, self._clock.tick(), time.time_ns())

        try:
            return self._replies.once(command.request_id, decide) if isinstance(command, Once) else decide()
        except Exception as error:
            return refusal_of(error)

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
                return self._core.admit(command.robot_id, now_ns)
            case SetRobotStatus():
                return self._core.set_status(command, wall_ns)
            case BeginDeletion():
                return self._core.begin_deletion(command.robot_id, now_ns, wall_ns)
            case GiveUpDeletion():
                return self._core.give_up_deletion(command.robot_id)
            case DeleteRobot():
                self._core.delete(command.robot_id, command.admission, now_ns, wall_ns)
                self._deletions.add(command.request_id, wall_ns)
                return self._keys.revoke_robot(command.robot_id, wall_ns)
            case IssueKey():
                return self._keys.issue(
                    command.key_id, command.robot_id, command.name, command.digest, command.ttl_s, wall_ns
                )
            case RotateKey():
                return self._keys.rotate(
                    command.key_id, command.new_id, command.digest, command.ttl_s, command.grace_s, wall_ns
                )
            case RevokeKey():
                return self._keys.revoke(command.key_id, wall_ns)
            case AnnounceRobot():
                return self._core.announce(command, wall_ns)
            case GetRobot():
                return self._core.get(command.robot_id)

    async def _commit(self) -> None:
        """What was decided is announced once it is safe, in the order in which it was decided."""
        events, keys, robots = self._core.take_events(), self._keys.take_changes(), self._core.take_records()
        deleted = self._deletions.take_changes(time.time_ns())
        changes = registry_documents.changes(robots, keys, self._keys.take_forgotten())

        def announce() -> None:
            self._events.publish(events)
            self._key_events.publish([encode(record) for record in keys])

        await commit(self._journal, changes + deleted, announce)

    async def _tick(self) -> None:
        while True:
            try:
                self._core.expire(self._clock.tick(), time.time_ns())
            except Exception:
                log.exception("a tick failed; the next goes on")
            await self._commit()
            await asyncio.sleep(self._limits.tick_ms / 1_000)

    async def close(self) -> None:
        """For a room that is no actor."""
        self._run.cancel()
        await self._upkeep.close()
        await asyncio.gather(self._run, return_exceptions=True)
        await self._journal.close()
        await self._events.close()
        await self._key_events.close()
