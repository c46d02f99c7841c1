"""What this process hears of the fleet: one pump per feed, for everybody who watches here."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

import msgspec

from api.background import Background
from api.conflation import Conflation
from api.fanout import Fanout, Watcher
from api.ports import Fleet
from api.recovery import Recovery
from api.settings import Settings
from api.websocket_protocol import FleetSocket, payload_of, text_frame
from fleet.errors import FleetError
from fleet.events import METRICS, QUEUE_METRICS, STREAMS, QueueDepthChanged, encode
from fleet.feed import Lineage, Page
from fleet.stream_messages import (
    Fault,
    FeedState,
    Gap,
    Place,
    Welcome,
    message,
    numbered,
    place_of,
    snapshot_messages,
)
from fleet.wall_time import rfc3339

log = logging.getLogger("fleetcast.hub")

FILL_FRAMES = 1_000
BAD_SINCE = Fault("bad_since", "since must be <epoch>:<offset>, as a message of this stream named it")


class FeedHub:
    """The newest events of one feed and everyone who watches it: those who hear plain messages, and those
    who asked for numbered ones (`v=2`), whose frames are made while there are any.

    It holds as much as the broadcaster does, from the start, so that a watcher who comes back is served here.
    What it holds is contiguous: after a hole it begins anew and everybody gets a snapshot.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.plain = Fanout(settings)
        self.numbered = Fanout(settings)
        self.conflated = Conflation(settings)
        self.recovery = Recovery(self)
        self.lineage = Lineage("")
        self.offset = 0  # in the feed, of what is at the head here
        self.current: bytes | None = None
        self.ready = asyncio.Event()
        self.gaps = 0
        self.resumed = 0

    def __len__(self) -> int:
        return len(self.plain) + len(self.numbered) + len(self.conflated)

    @property
    def fanouts(self) -> tuple[Fanout, Fanout]:
        """Of those who hear every event."""
        return self.plain, self.numbered

    @property
    def place(self) -> Place:
        """After everything that was heard of the feed."""
        return Place(self.lineage.epoch, self.offset)

    # -- what comes from the fleet

    async def pump(self, fleet: Fleet) -> None:
        """The one long poll of this process on this feed; at first everything that is kept there."""
        while True:
            wait_ms = fleet.limits.long_poll_ms if self.ready.is_set() else 0
            try:
                page = await fleet.read(self.name, self.lineage.epoch, self.offset, wait_ms)
            except FleetError as error:
                log.warning("feed %s: %s", self.name, error.detail)
                await asyncio.sleep(0.2)
                continue
            if not self.lineage.epoch:
                self.lineage = page.lineage or self.lineage
                continue
            self.take(page)
            if len(page.events) < fleet.limits.max_batch:
                self.ready.set()

    def take(self, page: Page) -> None:
        first = page.offset - len(page.events)
        if not page.recovered:
            self._lose(page, first)
        self.lineage = page.lineage or self.lineage
        self.current = page.current or self.current  # of metrics a new broadcaster has none at first
        self.push(page.events)

    def push(self, events: list[bytes]) -> None:
        if not events:
            return
        first, self.offset = self.offset, self.offset + len(events)
        self.plain.push([text_frame(event) for event in events])
        self.conflated.push(events)
        if len(self.numbered):
            self.numbered.push(self._numbered_frames(first, events))
        else:
            self.numbered.restart(self.plain.head)

    def _numbered_frames(self, first: int, events: list[bytes]) -> list[bytes]:
        return [text_frame(each) for each in numbered(self.name, self.lineage.epoch, first, events)]

    def _lose(self, page: Page, first: int) -> None:
        """There is a hole before `first`: nobody here knows what was in it."""
        lineage = page.lineage or self.lineage
        known = lineage.holds(self.lineage.epoch, self.offset) and first > self.offset
        self.offset = first
        self.gaps += self.ready.is_set()
        if self.name != METRICS:
            self._tell_all(Gap("expired" if known else "unknown"))
        for fanout in self.fanouts:
            fanout.restart(self.plain.head)

    def _tell_all(self, gap: Gap) -> None:
        frame = text_frame(message(None, gap))
        self.conflated.missed = len(self.conflated) > 0
        self.plain.hold_all()
        for watcher in self.numbered.hold_all():
            watcher.write(frame)
        self.recovery.wanted.set()

    # -- who watches

    def add(self, socket: FleetSocket) -> Watcher:
        """Hears the socket, to which every event from now on goes; on queue-metrics the depth first."""
        watcher = self.plain.join(socket)
        self._tell_depth(watcher)
        return watcher

    def add_conflated(self, socket: FleetSocket, period_ms: int) -> Watcher:
        """Hears the latest event of each robot, so often."""
        return self.conflated.add(socket, period_ms)

    def add_numbered(self, socket: FleetSocket, since: str | None) -> Watcher:
        """The same with places. `since` names one to continue after; "" asks for the latest state first."""
        watcher = self.numbered.join(socket)
        if since is None:
            self._say(watcher, self.place, Welcome(False))
            self._tell_depth(watcher)
            return watcher
        place = place_of(since)
        self.numbered.hold(watcher, place)
        if place is not None:
            self.judge(watcher, place)
        else:
            self._say(watcher, None, Welcome(False))
            if since:
                self._say(watcher, None, BAD_SINCE)
                self._say(watcher, None, Gap("unknown"))
        self.recovery.wanted.set()
        return watcher

    def _tell_depth(self, watcher: Watcher) -> None:
        if self.name != QUEUE_METRICS:
            return
        depth = msgspec.json.decode(self.current or b'{"depth":0}')["depth"]
        now = encode(QueueDepthChanged(depth, rfc3339(time.time_ns())))
        if watcher.fanout is self.numbered:
            [now] = snapshot_messages(self.place, FeedState([now]))
        watcher.write(text_frame(now))

    def judge(self, watcher: Watcher, place: Place, lineage: Lineage | None = None, head: int = 0) -> None:
        """Continues after `place`, or says that this is not possible. Without `lineage` and `head`, which are
        the broadcaster's newest, it may stay in doubt: this process may be behind."""
        known = (lineage or self.lineage).holds(place.epoch, place.offset)
        if known and place.offset <= max(self.offset, head):
            self._continue(watcher, place.offset)
        elif lineage is not None:
            self._refuse(watcher, Gap("unknown"))

    def _continue(self, watcher: Watcher, offset: int) -> None:
        cursor = self.plain.head - (self.offset - offset)
        if cursor < self.plain.tail:
            self._refuse(watcher, Gap("expired"))
            return
        self.resumed += 1
        self._say(watcher, Place(self.lineage.epoch, offset), Welcome(True))
        self.begin(watcher, cursor, [])

    def _refuse(self, watcher: Watcher, gap: Gap) -> None:
        self._say(watcher, None, Welcome(False))
        self._say(watcher, None, gap)
        self.numbered.hold(watcher)

    def begin(self, watcher: Watcher, cursor: int, prelude: list[bytes]) -> None:
        """One that was held: `prelude`, then the events from `cursor` on."""
        tail = self.numbered.tail
        if watcher.fanout is self.numbered and cursor < tail:
            first = max(self.plain.tail, cursor - cursor % FILL_FRAMES)
            events = [payload_of(frame) for frame in self.plain.frames(first)[: tail - first]]
            offset = self.offset - (self.plain.head - first)
            self.numbered.put_before(self._numbered_frames(offset, events))
        watcher.fanout.begin(watcher, cursor, prelude)

    @staticmethod
    def _say(watcher: Watcher, place: Place | None, data: Welcome | Gap | Fault) -> None:
        watcher.write(text_frame(message(place, data)))


class Hub:
    """All streams of this process."""

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self.feeds = {name: FeedHub(name, settings) for name in STREAMS}
        self._fleet = fleet
        self._sweep_s = settings.send_timeout_s / 4
        self._background = Background()

    @property
    def fanouts(self) -> list[Fanout]:
        return [fanout for feed in self.feeds.values() for fanout in (*feed.fanouts, *feed.conflated.fanouts)]

    async def start(self) -> None:
        for feed in self.feeds.values():
            self._background.start(partial(feed.pump, self._fleet))
            self._background.start(partial(feed.recovery.run, self._fleet))
        self._background.start(self._sweep)
        await asyncio.gather(*(feed.ready.wait() for feed in self.feeds.values()))

    async def stop(self) -> None:
        await self._background.stop()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_s)
            now = asyncio.get_running_loop().time()
            for fanout in self.fanouts:
                fanout.sweep(now)
