"""What the registry last said of the robots that claim at this door."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from actors.batching import Batcher, outcome_of
from fleet.limits import Limits
from fleet.messages import AdmitClaim, Admitted, RegistryCommand


class RegistrySide(Protocol):
    async def execute(self, commands: Sequence[RegistryCommand]) -> list[Any]: ...


class Admissions:
    """An admission serves the claims of its robot for `admission_ms`: a robot whose jobs take milliseconds
    would else ask the registry for each. It cannot do harm: the job store refuses one that was ended since,
    and then the registry is asked anew. Bound: `max_robots`, the oldest goes."""

    def __init__(self, registry: RegistrySide, limits: Limits) -> None:
        self._registry = registry
        self._kept_s = limits.admission_ms / 1_000
        self._max_robots = limits.max_robots
        self._kept: OrderedDict[str, tuple[Admitted, float]] = OrderedDict()  # oldest first, until when
        self._asked: dict[str, asyncio.Future[Admitted]] = {}  # of each robot the newest under way
        self._batcher: Batcher[str, Admitted] = Batcher(self._send, limits.max_batch, limits.max_backlog)

    def kept(self, robot_id: str) -> Admitted | None:
        admitted, until = self._kept.get(robot_id, (None, 0.0))
        return admitted if until > asyncio.get_running_loop().time() else None

    def ask(self, robot_id: str) -> asyncio.Future[Admitted]:
        """Raises what the registry refuses with: NotFound, Conflict."""
        future = self._asked[robot_id] = self._batcher.put(robot_id)
        future.add_done_callback(partial(self._keep, robot_id))
        return future

    def forget(self, robot_id: str) -> None:
        """What is under way is answered, and not kept: it may have been said before."""
        self._kept.pop(robot_id, None)
        self._asked.pop(robot_id, None)

    async def ask_all(self, robot_ids: Sequence[str]) -> list[Any]:
        """The same in one call, a refusal being a reply; nothing is kept."""
        return await self._registry.execute([AdmitClaim(robot_id) for robot_id in robot_ids])

    async def close(self) -> None:
        await self._batcher.close()

    def _keep(self, robot_id: str, future: asyncio.Future[Admitted]) -> None:
        if self._asked.get(robot_id) is not future:
            return
        self.forget(robot_id)
        if future.cancelled() or future.exception():
            return
        now = asyncio.get_running_loop().time()
        self._kept[robot_id] = (future.result(), now + self._kept_s)
        oldest, (_, until) = next(iter(self._kept.items()))
        if until <= now or len(self._kept) > self._max_robots:
            del self._kept[oldest]

    async def _send(self, robot_ids: Sequence[str]) -> list[Any]:
        return [outcome_of(reply) for reply in await self.ask_all(robot_ids)]
