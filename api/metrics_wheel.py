"""metrics/stream: every watcher at its own interval, one task for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import Counter

from api.background import Background
from api.fanout import Fanout, Watcher
from api.hub import Hub
from api.websocket_protocol import FleetSocket, text_frame
from fleet.events import METRICS

MAX_LABELS = 32
OTHER = "other"
NOTHING_YET_S = 0.1


class Subscriber(Watcher):
    """A watcher that the wheel tells, not the feed."""

    __slots__ = ("_wheel",)

    def __init__(self, socket: FleetSocket, fanout: Fanout, wheel: MetricsWheel) -> None:
        super().__init__(socket, fanout)
        self._wheel = wheel

    def on_end(self) -> None:
        super().on_end()
        self._wheel.remove(self)


class MetricsWheel:
    """A slow watcher misses snapshots rather than queueing them: only the newest is worth anything."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._heap: list[tuple[float, int, Watcher, float]] = []
        self._tie = itertools.count()
        self._live: dict[Watcher, str] = {}
        self._labels: Counter[str] = Counter()
        self._background = Background()
        self._earlier = asyncio.Event()

    def __len__(self) -> int:
        return len(self._live)

    def environments(self) -> dict[str, int]:
        """Watchers per `environment`."""
        return dict(self._labels)

    def add(self, socket: FleetSocket, interval_s: float, environment: str) -> None:
        """The first snapshot goes out at once. A client chooses the label, so only 32 at a time have a
        name."""
        watcher = Subscriber(socket, self._hub.feeds[METRICS].plain, self)
        if environment not in self._labels and len(self._labels) >= MAX_LABELS:
            environment = OTHER
        self._live[watcher] = environment
        self._labels[environment] += 1
        wait_s = interval_s if self._send(watcher) else NOTHING_YET_S
        due = asyncio.get_running_loop().time() + wait_s
        heapq.heappush(self._heap, (due, next(self._tie), watcher, interval_s))
        if self._heap[0][2] is watcher:
            self._earlier.set()

    def remove(self, watcher: Watcher) -> None:
        """Entries of those who left leave the heap in bulk, once they are most of it."""
        label = self._live.pop(watcher)
        self._labels[label] -= 1
        if not self._labels[label]:
            del self._labels[label]
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._live):
            self._heap = [entry for entry in self._heap if entry[2] in self._live]
            heapq.heapify(self._heap)

    def start(self) -> None:
        self._background.start(self._run)

    async def stop(self) -> None:
        await self._background.stop()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._earlier.clear()
            now = loop.time()
            while self._heap and self._heap[0][0] <= now:
                due, _, watcher, interval_s = heapq.heappop(self._heap)
                if watcher in self._live:
                    # After a stall one snapshot, not one for each that was missed.
                    due = max(due, now - interval_s) + (interval_s if self._send(watcher) else NOTHING_YET_S)
                    heapq.heappush(self._heap, (due, next(self._tie), watcher, interval_s))
            wait = self._heap[0][0] - now if self._heap else None
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: in Python 3.11 it may swallow the cancellation that ends this loop.
                async with asyncio.timeout(wait):
                    await self._earlier.wait()

    def _send(self, watcher: Watcher) -> bool:
        """False while the fleet has not said anything yet."""
        current = self._hub.feeds[METRICS].current
        if current is not None and not watcher.socket.blocked:
            watcher.write(text_frame(current))
        return current is not None
