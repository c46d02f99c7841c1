"""Work that goes on as long as the server does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("fleetcast.background")
RESTART_S = 1.0


class Background:
    """Runs `work` until it is stopped. An error that nobody foresaw is logged and the work begun again: a
    stream that falls silent for ever would be worse."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._keep(work)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    @staticmethod
    async def _keep(work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
                return
            except Exception:
                log.exception("work in the background failed and begins again")
            await asyncio.sleep(RESTART_S)
