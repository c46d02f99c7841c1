"""Fan-out within one process: one pump per feed, a cursor per watcher, one write per flush."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from api.background import Background
from api.limits import InboundRate, Verdict
from api.ports import Fleet
from api.settings import Settings
from api.websocket_protocol import FleetSocket, text_frame
from fleet.errors import FleetError
from fleet.events import STREAMS

log = logging.getLogger("fleetcast.hub")

MAX_BEHIND_BYTES = 1024 * 1024
KEPT_FRAMES = 20_000
PONG = text_frame(b"pong")


class Watcher:
    """A monitoring socket and its place in a feed."""

    __slots__ = ("_rate", "blocked_since", "cursor", "feed", "socket", "unsent")

    def __init__(self, socket: FleetSocket, feed: FeedHub) -> None:
        self.socket = socket
        self.feed = feed
        self.cursor = feed.head
        self.blocked_since = 0.0
        self.unsent = 0
        self._rate = feed.inbound_rate()
        socket.listener = self

    def write(self, frames: bytes) -> None:
        """Now, or never if the socket takes no byte for a while: see `FeedHub.sweep`."""
        if not self.socket.write(frames):
            self.feed.note_blocked(self)

    def on_text(self, data: bytes) -> None:
        verdict = self._judge()
        if verdict is Verdict.HEAR and data == b"ping":
            self.write(PONG)
        elif verdict is not Verdict.CLOSE:
            self.feed.ignored_messages += 1

    def on_control(self) -> None:
        self._judge()

    def _judge(self) -> Verdict:
        verdict = self._rate.judge(asyncio.get_running_loop().time())
        if verdict is Verdict.CLOSE:
            self.socket.close_with(1008, "too many messages a second")
        return verdict

    def on_binary(self, data: bytes) -> None:
        self.socket.close_with(1003, "this socket takes text only")

    def on_writable(self) -> None:
        self.feed.catch_up(self)

    def on_end(self) -> None:
        self.feed.remove(self)


class FeedHub:
    """Frames [tail, head) of one feed and everyone who watches it.

    Those who took every frame that was flushed are level, and get the next ones as the same bytes in one
    loop. Who joined since, or has not taken all it was given, stands apart with a cursor of its own until the
    next flush, or until its socket has room. Bound: 20,000 frames, and 1 MiB that a watcher may be behind;
    then it is aborted.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.head = 0
        self.tail = 0
        self.current: bytes | None = None
        self.ready = asyncio.Event()
        self.slow_disconnects = 0
        self.ignored_messages = 0
        self.sent_events = 0
        self.sent_bytes = 0
        self._settings = settings
        self._epoch = ""
        self._offset = 0
        self._frames: list[bytes] = []
        self._ends: list[int] = []  # bytes pushed up to and including each frame
        self._bytes = 0
        self._flushed = 0
        self._level: set[Watcher] = set()
        self._apart: set[Watcher] = set()
        self._blocked: set[Watcher] = set()
        self._flushed_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._level) + len(self._apart)

    def inbound_rate(self) -> InboundRate:
        return InboundRate(self._settings.max_messages_per_s, self._settings.inbound_patience_s)

    def add(self, socket: FleetSocket) -> Watcher:
        """Hears the socket, to which every event from now on goes."""
        watcher = Watcher(socket, self)
        self._apart.add(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        self._level.discard(watcher)
        self._apart.discard(watcher)
        self._blocked.discard(watcher)

    async def pump(self, fleet: Fleet) -> None:
        """The one long poll of this process on this feed."""
        while True:
            try:
                page = await fleet.read(self.name, self._epoch, self._offset, fleet.limits.long_poll_ms)
            except FleetError as error:
                log.warning("feed %s: %s", self.name, error.detail)
                await asyncio.sleep(0.2)
                continue
            self._epoch, self._offset = page.epoch, page.offset
            self.current = page.current or self.current  # a restarted broadcaster has to be told again
            self.push(page.events)
            self.ready.set()

    def push(self, events: list[bytes]) -> None:
        if not events:
            return
        for event in events:
            frame = text_frame(event)
            self._bytes += len(frame)
            self._frames.append(frame)
            self._ends.append(self._bytes)
        self.head += len(events)
        self._trim()
        self._schedule()

    def _trim(self) -> None:
        """Never what has not been flushed yet."""
        surplus = min(len(self._frames) - KEPT_FRAMES, self._flushed - self.tail)
        if surplus > KEPT_FRAMES // 4:  # not one by one: cutting the front of a list moves the rest
            del self._frames[:surplus], self._ends[:surplus]
            self.tail += surplus

    def _schedule(self) -> None:
        """At once after a quiet time, else at most one flush per interval: writes are what costs."""
        loop = asyncio.get_running_loop()
        wait = self._flushed_at + self._settings.flush_interval_s - loop.time()
        if wait <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = loop.call_later(wait, self.flush)

    def flush(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flushed_at = loop.time()
        data = self._since(self._flushed)
        apart = tuple(self._apart)
        level, count = self._level, self.head - self._flushed
        self._flushed = self.head
        # The hot line: all that is done per watcher and flush.
        stuck = [watcher for watcher in level if not watcher.socket.write(data)]
        self._account(len(level), count, data)
        for watcher in stuck:
            self._set_apart(watcher)
        for watcher in apart:
            self._advance(watcher)

    def _since(self, cursor: int) -> bytes:
        return b"".join(self._frames[cursor - self.tail :])

    def _account(self, watchers: int, events: int, data: bytes) -> None:
        self.sent_events += watchers * events
        self.sent_bytes += watchers * len(data)

    def _set_apart(self, watcher: Watcher) -> None:
        """What it was given last waits in its socket, the next does here."""
        self._level.discard(watcher)
        watcher.cursor = self._flushed
        self._apart.add(watcher)
        self.note_blocked(watcher)

    def _advance(self, watcher: Watcher) -> None:
        """Up to what is flushed, unless its socket is full."""
        if watcher.socket.blocked:
            if self._behind_bytes(watcher) > MAX_BEHIND_BYTES:
                self._drop(watcher)
            return
        if watcher.cursor > self._flushed:
            return  # it joined since
        if watcher.cursor < self.tail:
            self._drop(watcher)
            return
        data = b"".join(self._frames[watcher.cursor - self.tail : self._flushed - self.tail])
        self._account(1, self._flushed - watcher.cursor, data)
        watcher.cursor = self._flushed
        if data and not watcher.socket.write(data):
            self.note_blocked(watcher)
        else:
            self._apart.discard(watcher)
            self._level.add(watcher)

    def catch_up(self, watcher: Watcher) -> None:
        """Its buffer drained: everything that waited goes in one write."""
        self._blocked.discard(watcher)
        if watcher in self._apart:
            self._advance(watcher)

    def note_blocked(self, watcher: Watcher) -> None:
        """Its second to take a byte begins with the first write that the kernel did not take whole."""
        if watcher not in self._blocked:
            self._blocked.add(watcher)
            watcher.blocked_since = asyncio.get_running_loop().time()
        watcher.unsent = watcher.socket.unsent_bytes()

    def lag_bytes(self) -> int:
        """By how much the slowest watcher is behind, what waits in its socket included."""
        return max((self._behind_bytes(watcher) for watcher in self._blocked), default=0)

    def _behind_bytes(self, watcher: Watcher) -> int:
        if watcher in self._level:
            return watcher.socket.unsent_bytes()
        if watcher.cursor < self.tail:
            return MAX_BEHIND_BYTES + 1
        index = watcher.cursor - self.tail
        pending = self._bytes - self._ends[index] + len(self._frames[index]) if index < len(self._ends) else 0
        return pending + watcher.socket.unsent_bytes()

    def _drop(self, watcher: Watcher) -> None:
        self.slow_disconnects += 1
        self.remove(watcher)
        watcher.socket.abort()

    def sweep(self, now: float) -> None:
        """Drops who has taken no byte for `send_timeout_s`."""
        for watcher in tuple(self._blocked):
            unsent = watcher.socket.unsent_bytes()
            if unsent < watcher.unsent:
                watcher.unsent, watcher.blocked_since = unsent, now
            elif now - watcher.blocked_since >= self._settings.send_timeout_s:
                self._drop(watcher)


class Hub:
    """All streams of this process."""

    def __init__(self, fleet: Fleet, settings: Settings) -> None:
        self.feeds = {name: FeedHub(name, settings) for name in STREAMS}
        self._fleet = fleet
        self._sweep_s = settings.send_timeout_s / 4
        self._background = Background()

    async def start(self) -> None:
        for feed in self.feeds.values():
            self._background.start(partial(feed.pump, self._fleet))
        self._background.start(self._sweep)
        await asyncio.gather(*(feed.ready.wait() for feed in self.feeds.values()))

    async def stop(self) -> None:
        await self._background.stop()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_s)
            now = asyncio.get_running_loop().time()
            for feed in self.feeds.values():
                feed.sweep(now)
