"""What a store asks for from time to time: its log copied, old jobs deleted, its clock noted."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from actors.job_tables import CLEANED
from actors.journal import Journal
from fleet.limits import Limits

log = logging.getLogger("fleetcast.upkeep")


class Keeps(Protocol):
    blocking: bool

    def compact(self) -> bool: ...

    def begin_log(self) -> None: ...

    def clean(self, wall_ns: int) -> int: ...

    def note_clock(self) -> None: ...


class Upkeep:
    """A failure ends the process, as that of a commit does: a disk that is full now loses the next commit."""

    def __init__(self, journal: Journal, tables: Keeps, limits: Limits) -> None:
        self._journal = journal
        self._tables = tables
        self._limits = limits
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._every(limits.compact_interval_ms, self._compact)),
            loop.create_task(self._every(limits.clean_interval_ms, self._clean)),
            loop.create_task(self._every(limits.clock_note_ms, self._note_clock)),
        ]

    async def _every(self, period_ms: int, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(period_ms / 1_000)
            try:
                await work()
            except Exception:
                log.critical("the store failed at its upkeep; this actor exits", exc_info=True)
                os._exit(1)

    async def _compact(self) -> None:
        """Beside the writer, which goes on; what cannot be done so, in its place."""
        if self._tables.blocking and await asyncio.to_thread(self._tables.compact):
            await self._journal.run(self._tables.begin_log)

    async def _clean(self) -> None:
        while await self._journal.run(lambda: self._tables.clean(time.time_ns())) == CLEANED:
            await asyncio.sleep(0)  # commits come between

    async def _note_clock(self) -> None:
        await self._journal.run(self._tables.note_clock)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
