"""Reads of a fleet over HTTP, as they are due: each robot asks now and then for a job that it knows."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

import httpx

from simulators.draws import Rng
from simulators.load.clock import Clock
from simulators.load.latency import Latencies

MAX_ASKING = 64
MAX_BEHIND = 10_000  # more are not asked, and counted
TICK_S = 0.005
ANSWER_S = 30.0


class Reader:
    """An open model: `per_s` reads of all robots together, evenly apart. Latency counts from when a read was
    due."""

    def __init__(self, url: str, token: str, per_s: float, clock: Clock, rng: Rng) -> None:
        self.latency = Latencies()
        self.offered = self.answered = 0
        self.refused: Counter[str] = Counter()
        self.job_id = ""  # of a job that exists, once there is one
        self._url = url.rstrip("/") + "/api/v1"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._per_s = per_s
        self._clock = clock
        self._rng = rng
        self._asking: set[asyncio.Task[None]] = set()
        self._behind: deque[int] = deque()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with httpx.AsyncClient(
            base_url=self._url,
            headers=self._headers,
            timeout=ANSWER_S,
            limits=httpx.Limits(max_connections=MAX_ASKING),
        ) as http:
            try:
                await self._read_on(http)
            finally:  # before the connections that they use are closed
                for task in self._asking:
                    task.cancel()
                await asyncio.gather(*self._asking, return_exceptions=True)

    async def _read_on(self, http: httpx.AsyncClient) -> None:
        gap_us = 1e6 / self._per_s
        due_us = self._clock.now_us() + gap_us * self._rng.random()
        while True:
            while due_us <= self._clock.now_us():
                self.offered += 1
                if len(self._behind) < MAX_BEHIND:
                    self._behind.append(int(due_us))
                due_us += gap_us
            while self._behind and len(self._asking) < MAX_ASKING:
                self._begin(http, self._behind.popleft())
            await asyncio.sleep(TICK_S)

    def _begin(self, http: httpx.AsyncClient, due_us: int) -> None:
        task = asyncio.get_running_loop().create_task(self._ask(http, due_us))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, http: httpx.AsyncClient, due_us: int) -> None:
        try:
            answer = await http.get(f"/jobs/{self.job_id}" if self.job_id else "/jobs?limit=1")
        except httpx.TransportError as error:
            self.refused[type(error).__name__] += 1
            return
        if answer.status_code == 200:
            self.answered += 1
            self.latency.record_one(self._clock.now_us() - due_us)
        else:
            self.refused[str(answer.status_code)] += 1
