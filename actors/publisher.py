"""Sends a room's events to a broadcaster: in order, once each, one call in flight."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

from actors import failpoints
from fleet.errors import FleetError
from fleet.feed import Batch, FeedHistory, FeedSource, Published
from fleet.limits import Limits

log = logging.getLogger("fleetcast.publisher")

RETRY_S = 0.1


class Publishes(Protocol):
    async def publish(self, batch: Batch) -> Published: ...


class Publisher:
    """Tells a broadcaster what happens in a room, by number: whichever of them restarts, the other's events
    and numbers continue, and nothing goes out twice. Says where it stands every `refresh_ms` at least, for a
    broadcaster that knows nothing yet. Bound: the newest `feed_events` events and `feed_bytes`; a broadcaster
    that stays away for longer has a hole, of which its readers are told.

    Calls begin `interval_ms` apart at least: what happens within it goes out together, and what happens after
    a rest at once. A call, with that of each reader whom it wakes, costs far more than the events in it."""

    def __init__(
        self, broadcaster: Publishes, limits: Limits, history: FeedHistory, interval_ms: int = 0
    ) -> None:
        """Needs a running event loop."""
        self._broadcaster = broadcaster
        self._limits = limits
        self._interval_s = interval_ms / 1_000
        self._source = FeedSource(history, limits.feed_events, limits.feed_bytes)
        self._news = asyncio.Event()
        self._news.set()
        self._run = asyncio.get_running_loop().create_task(self._tell())

    def publish(self, events: Sequence[bytes], current: bytes | None = None) -> None:
        """`current` is the feed's state after these events, which may be none."""
        self._source.append(events, current)
        if events or current is not None:
            self._news.set()

    async def close(self) -> None:
        """For a room that is no actor: what has gathered goes out."""
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)
        with contextlib.suppress(FleetError):
            while (batch := self._source.batch(self._limits.max_batch)).events:
                self._source.told(await self._broadcaster.publish(batch))

    async def _tell(self) -> None:
        while True:
            await self._wait_for_news()
            began = asyncio.get_running_loop().time()
            batch = self._source.batch(self._limits.max_batch)
            if batch.events:
                await failpoints.hit_when_replies_left(failpoints.AFTER_REPLY)
            try:
                answer = await self._broadcaster.publish(batch)
                more = self._source.told(answer)
            except FleetError as error:
                log.warning("a feed is not told: %s", error.detail)
                await asyncio.sleep(RETRY_S)
                more = True
            if more:
                self._news.set()
            else:
                await asyncio.sleep(began + self._interval_s - asyncio.get_running_loop().time())

    async def _wait_for_news(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.refresh_ms / 1_000):
                await self._news.wait()
        self._news.clear()
