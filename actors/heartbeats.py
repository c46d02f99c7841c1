"""A door's heartbeats: to the registry, and to the job store for the jobs that they name."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

from actors.batching import GIVEN_UP, Batcher, outcome_of
from fleet.limits import Limits
from fleet.messages import Beat, BeatReply, Beats, Command, HeartbeatAnswer, JobToken


class JobStoreSide(Protocol):
    async def execute(self, commands: Sequence[Command]) -> list[Any]: ...


class RegistrySide(Protocol):
    async def heartbeats(self, beats: Sequence[Beat]) -> list[BeatReply]: ...


class Heartbeats:
    """The rooms are told side by side: while one is away, robots stay online and jobs keep their leases in
    the other. Bound: `max_backlog` wait for each, then Overloaded; conflated per robot while
    it does not answer."""

    def __init__(self, job_store: JobStoreSide, registry: RegistrySide, limits: Limits) -> None:
        self._job_store = job_store
        self._registry = registry
        self._limits = limits
        self._longer: OrderedDict[str, int] = OrderedDict()  # leases of robots that beat more slowly
        size, bound = limits.max_batch, limits.max_backlog
        self._beats: Batcher[Beat, HeartbeatAnswer] = Batcher(
            self._send_beats, size, bound, conflate=lambda beat: beat.robot_id
        )
        self.leases: Batcher[Beats, list[str]] = Batcher(
            self._send_leases, size, bound, conflate=lambda beats: beats.robot_id
        )

    def put(self, beat: Beat, jobs: list[JobToken]) -> asyncio.Future[HeartbeatAnswer]:
        told = self._beats.put(beat)
        return _Both(self, beat.robot_id, jobs, told).answer if jobs else told

    def lease_ms(self, robot_id: str) -> int:
        """As the registry said last."""
        return self._longer.get(robot_id, self._limits.lease_ms)

    async def close(self) -> None:
        await self._beats.close()
        await self.leases.close()

    # -- one call per batch

    async def _send_beats(self, beats: Sequence[Beat]) -> Sequence[Any]:
        replies = await self._registry.heartbeats(beats)
        for beat, reply in zip(beats, replies, strict=True):
            self._note(beat.robot_id, reply.lease_ms)
        return [HeartbeatAnswer(r.next_heartbeat_ms, r.drain, [], r.refused) for r in replies]

    def _note(self, robot_id: str, lease_ms: int) -> None:
        if lease_ms > self._limits.lease_ms:
            self._longer[robot_id] = lease_ms
            if len(self._longer) > self._limits.max_robots:
                self._longer.popitem(last=False)
        elif robot_id in self._longer:
            del self._longer[robot_id]

    async def _send_leases(self, leases: Sequence[Beats]) -> Sequence[Any]:
        return [outcome_of(reply) for reply in await self._job_store.execute(leases)]


class _Both:
    """One heartbeat that names jobs, answered when both rooms have. Callbacks, not a task."""

    __slots__ = ("_jobs", "_lease_ms", "_robot_id", "_rooms", "_stops", "_told", "answer")

    def __init__(
        self, rooms: Heartbeats, robot_id: str, jobs: list[JobToken], told: asyncio.Future[HeartbeatAnswer]
    ) -> None:
        self.answer: asyncio.Future[HeartbeatAnswer] = told.get_loop().create_future()
        self._rooms = rooms
        self._robot_id = robot_id
        self._jobs = jobs
        self._told = told
        self._extend()
        told.add_done_callback(self._on_told)

    def _extend(self) -> None:
        self._lease_ms = self._rooms.lease_ms(self._robot_id)
        self._stops = self._rooms.leases.put(Beats(self._robot_id, self._jobs, self._lease_ms))
        self._stops.add_done_callback(self._settle)

    def _on_told(self, told: asyncio.Future[HeartbeatAnswer]) -> None:
        if self._rooms.lease_ms(self._robot_id) > self._lease_ms:
            self._extend()  # before the robot hears that it may beat more slowly
        self._settle(told)

    def _settle(self, _: asyncio.Future[Any]) -> None:
        if self.answer.done() or not (self._told.done() and self._stops.done()):
            return
        error = _error_of(self._told) or _error_of(self._stops)
        if error is not None:
            self.answer.set_exception(error)
            self.answer.exception()  # marks it as seen: a caller that left is no error
            return
        told = self._told.result()
        stops = [] if told.refused else list(self._stops.result())
        self.answer.set_result(HeartbeatAnswer(told.next_heartbeat_ms, told.drain, stops, told.refused))


def _error_of(future: asyncio.Future[Any]) -> BaseException | None:
    return GIVEN_UP if future.cancelled() else future.exception()
