"""A door's commands to the job store: what robots say, in order, beside all else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from actors.batching import Batcher, outcome_of
from fleet.limits import Limits
from fleet.messages import Claim, Command, GiveBack, Report, Withdraw


class JobStoreSide(Protocol):
    async def execute(self, commands: Sequence[Command]) -> list[Any]: ...


class Lanes:
    """One call is under way in each lane; what arrives meanwhile is its next batch. What robots say shares a
    lane, so that nothing overtakes what a robot said before. All else has its own, since a list of a thousand
    jobs takes longer than a report. A third or fourth would make smaller batches, of which the store commits
    fewer a second. Bound: `max_backlog` a lane, then Overloaded."""

    def __init__(self, job_store: JobStoreSide, limits: Limits) -> None:
        self._job_store = job_store
        bounds = limits.max_batch, limits.max_backlog
        self._robots: Batcher[Command, Any] = Batcher(self._send, *bounds)
        self._others: Batcher[Command, Any] = Batcher(self._send, *bounds)

    def put(self, command: Command) -> asyncio.Future[Any]:
        """Of a batch, that is one call, each gets its own outcome."""
        said = isinstance(command, Report | Claim | Withdraw | GiveBack)
        return (self._robots if said else self._others).put(command)

    async def close(self) -> None:
        await self._robots.close()
        await self._others.close()

    async def _send(self, commands: Sequence[Command]) -> Sequence[Any]:
        return [outcome_of(reply) for reply in await self._job_store.execute(commands)]
