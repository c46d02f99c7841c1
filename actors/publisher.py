"""Sends a room's events to a broadcaster: in order, once each, one call in flight."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from actors import failpoints
from fleet.errors import FleetError
from fleet.feed import Batch, FeedHistory, FeedSource, Published
from fleet.limits import Limits

log = logging.getLogger("fleetcast.publisher")

RETRY_S = 0.1


class Publishes(Protocol):
    async def publish(
        self, publisher: str, seq: int, events: list[bytes], current: bytes | None = None
    ) -> Published: ...


class Publisher:
    """Bound: `max_backlog` events; beyond it the oldest go and the feed starts a new epoch."""

    def __init__(self, broadcaster: Publishes, limits: Limits) -> None:
        self._broadcaster = broadcaster
        self._limits = limits
        self._name = secrets.token_hex(6)
        self._seq = 0
        self._backlog: deque[bytes] = deque()
        self._current: bytes | None = None
        self._untold = False
        self._runner: asyncio.Task[None] | None = None

    def publish(self, events: Sequence[bytes], current: bytes | None = None) -> None:
        """`current` is the feed's state after these events, which may be none."""
        self._backlog.extend(events)
        if current is not None:
            self._current, self._untold = current, True
        while len(self._backlog) > self._limits.max_backlog:
            self._backlog.popleft()
            self._seq += 1
        if self._runner is None and (self._backlog or self._untold):
            self._runner = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._backlog or self._untold:
                await self._send()
        finally:
            self._runner = None

    async def _send(self) -> None:
        count = min(self._limits.max_batch, len(self._backlog))
        seq, batch = self._seq, [self._backlog[index] for index in range(count)]
        self._untold = False
        try:
            await self._broadcaster.publish(self._name, seq, batch, self._current)
        except FleetError:
            self._untold = self._current is not None
            await asyncio.sleep(0.1)  # the broadcaster restarts: the same batch again
            return
        sent = seq + count - self._seq  # less than count if the backlog overflowed meanwhile
        for _ in range(max(0, sent)):
            self._backlog.popleft()
        self._seq += max(0, sent)


class Follows(Protocol):
    async def follow(self, batch: Batch) -> Published: ...


class NumberedPublisher:
    """Tells a broadcaster what happens in a room, by number: whichever of them restarts, the other's events
    and numbers continue, and nothing goes out twice. Says where it stands every `refresh_ms` at least, for a
    broadcaster that knows nothing yet. Bound: the newest `feed_events` events and `feed_bytes`; a broadcaster
    that stays away for longer has a hole, of which its readers are told."""

    def __init__(self, broadcaster: Follows, limits: Limits, history: FeedHistory) -> None:
        """Needs a running event loop; `run` is the task that ends with it."""
        self._broadcaster = broadcaster
        self._limits = limits
        self._source = FeedSource(history, limits.feed_events, limits.feed_bytes)
        self._news = asyncio.Event()
        self._news.set()
        self.run = asyncio.get_running_loop().create_task(self._tell())

    def publish(self, events: Sequence[bytes], current: bytes | None = None) -> None:
        """`current` is the feed's state after these events, which may be none."""
        self._source.append(events, current)
        if events or current is not None:
            self._news.set()

    async def _tell(self) -> None:
        while True:
            await self._wait_for_news()
            batch = self._source.batch(self._limits.max_batch)
            if batch.events:
                await failpoints.hit_when_replies_left(failpoints.AFTER_REPLY)
            try:
                answer = await self._broadcaster.follow(batch)
                more = self._source.told(answer)
            except FleetError as error:
                log.warning("a feed is not told: %s", error.detail)
                await asyncio.sleep(RETRY_S)
                more = True
            if more:
                self._news.set()

    async def _wait_for_news(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.refresh_ms / 1_000):
                await self._news.wait()
        self._news.clear()
