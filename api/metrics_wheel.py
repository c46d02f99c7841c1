"""metrics/stream: every watcher at its own interval, one task for all of them."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from api.hub import Hub, Watcher
from api.websocket_protocol import text_frame
from fleet.events import METRICS


class MetricsWheel:
    """A slow watcher misses snapshots rather than queueing them: only the newest is worth anything."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._heap: list[tuple[float, int, Watcher, float]] = []
        self._tie = itertools.count()
        self._live: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._earlier = asyncio.Event()

    def __len__(self) -> int:
        return len(self._live)

    def add(self, watcher: Watcher, interval_s: float) -> None:
        """The first snapshot goes out at once."""
        self._live.add(watcher)
        self._send(watcher)
        due = asyncio.get_running_loop().time() + interval_s
        heapq.heappush(self._heap, (due, next(self._tie), watcher, interval_s))
        if self._heap[0][2] is watcher:
            self._earlier.set()

    def remove(self, watcher: Watcher) -> None:
        """Its entry in the heap leaves when it is next due, at most 60 s later."""
        self._live.discard(watcher)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._earlier.clear()
            now = loop.time()
            while self._heap and self._heap[0][0] <= now:
                due, _, watcher, interval_s = heapq.heappop(self._heap)
                if watcher in self._live:
                    self._send(watcher)
                    heapq.heappush(self._heap, (due + interval_s, next(self._tie), watcher, interval_s))
            wait = self._heap[0][0] - now if self._heap else None
            try:
                await asyncio.wait_for(self._earlier.wait(), wait)
            except TimeoutError:
                continue

    def _send(self, watcher: Watcher) -> None:
        current = self._hub.feeds[METRICS].current
        if current is not None and not watcher.socket.blocked:
            watcher.socket.write(text_frame(current))
