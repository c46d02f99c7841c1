"""Keeps one endpoint's feed and hands it to every door.

Owns      the feed of one endpoint
Hears     publish
Says      pages of the feed, by long poll
Survives  restart: its publisher tells it again what it keeps, under the same numbers
Never     knows a watcher; sends anything twice to a reader that names its place
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

from actors.wire import Reachable
from fleet.errors import Unavailable
from fleet.events import encode
from fleet.feed import Batch, Feed, Lineage, Page, Published
from fleet.fleet_metrics import FleetMetrics, MetricsMessage
from fleet.limits import Limits
from fleet.wall_time import rfc3339

PUBLISHER_TIMEOUT_S = 2.0


class Broadcaster(Reachable):
    """Its feed has one publisher, whose numbers it takes over. Until that has said where it stands there is
    nothing to read."""

    def __init__(self, limits: Limits) -> None:
        self._feed = Feed("", limits.feed_events, limits.feed_bytes)
        self._begun = asyncio.Event()
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def publish(self, batch: Batch) -> Published:
        answer = self._feed.publish(batch)
        self._begun.set()
        self._wake()
        return answer

    async def read(self, epoch: str, offset: int, limit: int, wait_ms: int) -> Page:
        """At most `limit` events after `offset`; waits up to `wait_ms` for the first. Raises Unavailable
        while the publisher is not heard of."""
        if not self._begun.is_set():
            await self._wait_for_publisher()
        page = self._feed.read(epoch, offset, limit)
        if page.events or not epoch or not page.recovered or wait_ms <= 0:
            return page
        await asyncio.wait([self._news], timeout=wait_ms / 1_000)
        return self._feed.read(epoch, offset, limit)

    async def _wait_for_publisher(self) -> None:
        try:
            async with asyncio.timeout(PUBLISHER_TIMEOUT_S):
                await self._begun.wait()
        except TimeoutError:
            raise Unavailable("the source of this feed is not heard of", "", 1.0) from None

    def _wake(self) -> None:
        self._news.set_result(None)
        self._news = asyncio.get_running_loop().create_future()


class MetricsBroadcaster(Broadcaster):
    """Takes the snapshot itself, every `refresh_ms`, for all doors. Its feed has a state and no events:
    nobody wants an old snapshot."""

    def __init__(self, limits: Limits, snapshot: Callable[[], Awaitable[FleetMetrics]]) -> None:
        super().__init__(limits)
        self._lineage = Lineage(secrets.token_hex(6))
        self._snapshot = snapshot
        self._period_s = limits.refresh_ms / 1_000
        self._run = asyncio.get_running_loop().create_task(self._poll())

    async def _poll(self) -> None:
        await self.publish(Batch(self._lineage, 0, 0, 0, []))
        while True:
            try:
                metrics = await self._snapshot()
            except Exception:
                metrics = None  # a room restarts: the last snapshot stands
            if metrics is not None:
                message = encode(MetricsMessage(rfc3339(time.time_ns()), metrics))
                await self.publish(Batch(self._lineage, 0, 0, 0, [], message))
            await asyncio.sleep(self._period_s)
