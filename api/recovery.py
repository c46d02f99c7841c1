"""What watchers wait for who came back from a place that is not here, or missed something.

One task per feed serves all of them: one question to the broadcaster for all who are in doubt, one snapshot
of the latest state, at most once a second, for all who need it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import cached_property
from typing import TYPE_CHECKING

from api.fanout import Fanout, Watcher
from api.ports import Fleet
from api.websocket_protocol import text_frame
from fleet.errors import FleetError
from fleet.stream_messages import FeedState, Place, parts_of, snapshot_messages

if TYPE_CHECKING:
    from api.hub import FeedHub

log = logging.getLogger("fleetcast.recovery")

SNAPSHOT_EVERY_S = 1.0
PAUSE_S = 0.05
SERVED_AT_ONCE = 32


class Snapshot:
    """The state of a feed at or after `place`, where the frames from `cursor` on continue. Encoded once, and
    only as somebody needs it."""

    def __init__(self, cursor: int, place: Place, gaps: int, state: FeedState) -> None:
        self.cursor = cursor
        self.gaps = gaps
        self._place = place
        self._state = state

    @property
    def items(self) -> list[bytes]:
        return self._state.items

    @cached_property
    def numbered(self) -> list[bytes]:
        return [text_frame(part) for part in snapshot_messages(self._place, self._state)]

    @cached_property
    def plain(self) -> list[bytes]:
        """One message per robot or job, written so many at a time."""
        frames = [text_frame(item) for item in self._state.items]
        return [b"".join(part) for part in parts_of(frames) if part]


class Recovery:
    def __init__(self, feed: FeedHub) -> None:
        self.wanted = asyncio.Event()
        self.snapshots = 0
        self._feed = feed
        self._latest: Snapshot | None = None
        self._begun_at = float("-inf")

    async def run(self, fleet: Fleet) -> None:
        self.wanted.set()
        while True:
            await self.wanted.wait()
            self.wanted.clear()
            await self.serve(fleet)

    async def serve(self, fleet: Fleet) -> None:
        """Everybody who waits now, if the fleet can tell what they wait for."""
        try:
            await self._settle_doubts(fleet)
            await self._serve_snapshots(fleet)
        except FleetError as error:
            log.warning("watchers of %s wait: %s", self._feed.name, error.detail)
            await self._again()

    async def _again(self) -> None:
        await asyncio.sleep(PAUSE_S)
        self.wanted.set()

    async def _settle_doubts(self, fleet: Fleet) -> None:
        feed = self._feed
        doubts = [(watcher, place) for watcher, place in feed.numbered.held.items() if place]
        if not doubts:
            return
        page = await fleet.read(feed.name, "", 0, 0)
        if page.lineage is None or not page.lineage.holds(feed.place.epoch, feed.place.offset):
            await self._again()  # history was lost, and the pump is about to hear of it
            return
        for watcher, place in doubts:
            if feed.numbered.held.get(watcher) is place:
                feed.judge(watcher, place, page.lineage, page.offset)

    async def _serve_snapshots(self, fleet: Fleet) -> None:
        if not self._waiting() and not self._feed.conflated.missed:
            return
        snapshot = await self._snapshot(fleet)
        if self._feed.conflated.missed and self._good(snapshot):
            self._feed.conflated.catch_up(snapshot.items)
        waiting = self._waiting()
        for start in range(0, len(waiting), SERVED_AT_ONCE):
            for fanout, watcher in waiting[start : start + SERVED_AT_ONCE]:
                if watcher in fanout.held and self._good(snapshot):
                    pieces = snapshot.plain if fanout is self._feed.plain else snapshot.numbered
                    self._feed.begin(watcher, snapshot.cursor, pieces)
            await asyncio.sleep(0)
        if self._waiting() or self._feed.conflated.missed:
            self.wanted.set()

    def _waiting(self) -> list[tuple[Fanout, Watcher]]:
        return [
            (fanout, watcher)
            for fanout in self._feed.fanouts
            for watcher, place in fanout.held.items()
            if place is None
        ]

    def _good(self, snapshot: Snapshot) -> bool:
        """No hole since it was begun, and what follows on it is still here."""
        return snapshot.gaps == self._feed.gaps and snapshot.cursor >= self._feed.plain.tail

    async def _snapshot(self, fleet: Fleet) -> Snapshot:
        """The place first, the state after it: what happens in between is then told twice, never missed."""
        feed, now = self._feed, asyncio.get_running_loop().time
        if self._latest is not None and self._good(self._latest):
            return self._latest
        await asyncio.sleep(self._begun_at + SNAPSHOT_EVERY_S - now())
        self._begun_at = now()
        cursor, place, gaps = feed.plain.head, feed.place, feed.gaps
        state = await fleet.state_of(feed.name)
        self.snapshots += 1
        self._latest = snapshot = Snapshot(cursor, place, gaps, state)
        asyncio.get_running_loop().call_later(SNAPSHOT_EVERY_S, self._forget, snapshot)
        return snapshot

    def _forget(self, snapshot: Snapshot) -> None:
        if self._latest is snapshot:
            self._latest = None
