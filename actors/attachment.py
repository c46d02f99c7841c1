"""A process beside the fleet: what it broadcasts goes to the watchers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Self

from actors.client import FleetClient
from actors.event_bus import background_loop


class Attachment:
    """Its methods may be awaited on any event loop: the client has one of its own. `undo` is closed with
    it, and a `with` statement closes it."""

    def __init__(self, client: FleetClient, undo: contextlib.ExitStack) -> None:
        self._client = client
        self._undo = undo
        undo.callback(self._close_client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Twice is once."""
        self._undo.close()

    async def announce_job(self, job_id: str, status: str) -> None:
        await self._run(self._client.announce_job(job_id, status))

    async def announce_robot(self, robot_id: str, status: str, cpu_percent: float, memory_mb: float) -> None:
        await self._run(self._client.announce_robot(robot_id, status, cpu_percent, memory_mb))

    async def announce_depth(self, depth: int) -> None:
        await self._run(self._client.announce_depth(depth))

    def _close_client(self) -> None:
        asyncio.run_coroutine_threadsafe(self._client.close(), background_loop()).result(30)

    @staticmethod
    async def _run(work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, background_loop()))
