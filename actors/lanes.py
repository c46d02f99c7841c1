"""A door's commands to the job store: several calls under way, and each robot's commands in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from actors.batching import Batcher, outcome_of
from fleet.limits import Limits
from fleet.messages import Claim, Command, GiveBack, Report, Withdraw

ROBOT_LANES = 2  # one is decided and committed while the other's robots are told


class JobStoreSide(Protocol):
    async def execute(self, commands: Sequence[Command]) -> list[Any]: ...


class Lanes:
    """One call is under way in each lane; what arrives meanwhile is its next batch. What a robot says shares
    a lane, so that nothing overtakes what it said before; all else has one of its own, since a list of a
    thousand jobs takes longer than a report. Bound: `max_backlog` a lane, then Busy."""

    def __init__(self, job_store: JobStoreSide, limits: Limits) -> None:
        self._job_store = job_store
        self._lanes: list[Batcher[Command, Any]] = [
            Batcher(self._send, limits.max_batch, limits.max_backlog) for _ in range(ROBOT_LANES + 1)
        ]

    def put(self, command: Command) -> asyncio.Future[Any]:
        """Of a batch, that is one call, each gets its own outcome."""
        if isinstance(command, Report | Claim | Withdraw | GiveBack):
            return self._lanes[1 + hash(command.robot_id) % ROBOT_LANES].put(command)
        return self._lanes[0].put(command)

    async def close(self) -> None:
        for lane in self._lanes:
            await lane.close()

    async def _send(self, commands: Sequence[Command]) -> Sequence[Any]:
        return [outcome_of(reply) for reply in await self._job_store.execute(commands)]
