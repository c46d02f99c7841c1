"""An open stream of jobs: arrivals do not wait for the server."""

from __future__ import annotations

import asyncio
import itertools
import time
from random import Random

import httpx
import msgspec

MAX_WAITING = 1_000
MAX_PER_POST = 1_000
PAUSE_S = 0.5


class JobSourceState(msgspec.Struct):
    submitted: int = 0
    failed_posts: int = 0
    dropped: int = 0


class JobSource:
    """Poisson arrivals at `rate_per_s`. Bound: 1,000 jobs wait for a server that is away; more are
    dropped and counted."""

    def __init__(self, url: str, token: str, rate_per_s: float, seed: int = 1) -> None:
        self._url = url.rstrip("/") + "/api/v1/jobs"
        self._token = token
        self._rate = rate_per_s
        self._rng = Random(seed)
        self._numbers = itertools.count(1)
        self._waiting: list[dict[str, object]] = []
        self._state = JobSourceState()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._rate > 0:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def renew(self, token: str) -> None:
        self._token = token

    async def state(self) -> JobSourceState:
        return self._state

    async def _run(self) -> None:
        refused = False
        next_s = time.monotonic() + self._rng.expovariate(self._rate)
        async with httpx.AsyncClient(timeout=10.0) as http:
            while True:
                await asyncio.sleep(PAUSE_S if refused else max(0.0, next_s - time.monotonic()))
                now_s = time.monotonic()
                while next_s <= now_s:
                    self._arrive()
                    next_s += self._rng.expovariate(self._rate)
                refused = not await self._post(http)

    def _arrive(self) -> None:
        number = next(self._numbers)
        if len(self._waiting) >= MAX_WAITING:
            self._state.dropped += 1
        else:
            self._waiting.append({"name": "simulated", "payload": {"n": number}})

    async def _post(self, http: httpx.AsyncClient) -> bool:
        batch = self._waiting[:MAX_PER_POST]
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            response = await http.post(self._url, json=batch, headers=headers)
            accepted = response.status_code == 201
        except httpx.HTTPError:
            accepted = False
        if accepted:
            del self._waiting[: len(batch)]
            self._state.submitted += len(batch)
        else:
            self._state.failed_posts += 1
        return accepted
