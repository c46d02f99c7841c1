"""The same frames to many sockets: a cursor per watcher, one write per flush."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from api.limits import InboundRate, Verdict
from api.settings import Settings
from api.websocket_protocol import FleetSocket, text_frame
from fleet.stream_messages import Place

MAX_BEHIND_BYTES = 1024 * 1024
KEPT_FRAMES = 20_000
KEPT_BYTES = 16 * 1024 * 1024
SLICE_BYTES = 64 * 1024
SLICES_AT_ONCE = 16
PONG = text_frame(b"pong")
NOTHING: Iterator[bytes] = iter(())


class Watcher:
    """A monitoring socket and its place in a feed. `prelude` is what it hears before its cursor counts, and
    what it was to hear before frame `counted_from` is no sign of its being slow."""

    __slots__ = (
        "_rate",
        "blocked_since",
        "counted_from",
        "cursor",
        "fanout",
        "prelude",
        "socket",
        "unsent",
    )

    def __init__(self, socket: FleetSocket, fanout: Fanout) -> None:
        self.socket = socket
        self.fanout = fanout
        self.cursor = self.counted_from = fanout.head
        self.prelude = NOTHING
        self.blocked_since = 0.0
        self.unsent = 0
        self._rate = fanout.inbound_rate()
        socket.listener = self

    def write(self, frames: bytes) -> None:
        """Now, or never if the socket takes no byte for a while: see `Fanout.sweep`."""
        if not self.socket.write(frames):
            self.fanout.note_blocked(self)

    def on_text(self, data: bytes) -> None:
        verdict = self._judge()
        if verdict is Verdict.HEAR and data == b"ping":
            self.write(PONG)
        elif verdict is not Verdict.CLOSE:
            self.fanout.ignored_messages += 1

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
        self.fanout.catch_up(self)

    def on_end(self) -> None:
        self.fanout.remove(self)


class Fanout:
    """Frames [tail, head) and everyone who watches them.

    Those who took every frame that was flushed are level, and get the next ones as the same bytes in one
    loop. Who joined since, has not taken all it was given or hears what it missed, stands apart with a cursor
    of its own until the next flush, or until its socket has room. Who is held hears nothing until `begin`.
    Bounds: 20,000 frames or 16 MiB, and 1 MiB that a watcher may be behind; then it is aborted.
    """

    def __init__(self, settings: Settings) -> None:
        self.head = 0
        self.tail = 0
        self.slow_disconnects = 0
        self.ignored_messages = 0
        self.sent_events = 0
        self.sent_bytes = 0
        self.held: dict[Watcher, Place | None] = {}
        self._settings = settings
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
        return len(self._level) + len(self._apart) + len(self.held)

    def inbound_rate(self) -> InboundRate:
        return InboundRate(self._settings.max_messages_per_s, self._settings.inbound_patience_s)

    # -- who watches

    def join(self, socket: FleetSocket) -> Watcher:
        """Hears the socket, to which every frame from now on goes."""
        watcher = Watcher(socket, self)
        self._apart.add(watcher)
        return watcher

    def hold(self, watcher: Watcher, place: Place | None = None) -> None:
        """It waits for the word on `place`, or for a snapshot; what it was still to hear is forgotten."""
        self._level.discard(watcher)
        self._apart.discard(watcher)
        watcher.prelude = NOTHING
        self.held[watcher] = place

    def hold_all(self) -> list[Watcher]:
        """Everybody who is not held yet."""
        self.flush()
        watchers = [*self._level, *self._apart]
        for watcher in watchers:
            self.hold(watcher)
        return watchers

    def begin(self, watcher: Watcher, cursor: int, prelude: Iterable[bytes] = ()) -> None:
        """One that was held, or just joined: first `prelude`, then the frames from `cursor` on, which may be
        still to come."""
        self.held.pop(watcher, None)
        watcher.cursor, watcher.prelude = cursor, iter(prelude)
        watcher.counted_from = max(self.head, cursor)
        self._apart.add(watcher)
        self._advance(watcher)

    def remove(self, watcher: Watcher) -> None:
        self._level.discard(watcher)
        self._apart.discard(watcher)
        self._blocked.discard(watcher)
        self.held.pop(watcher, None)

    # -- frames

    def push(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._bytes += len(frame)
            self._ends.append(self._bytes)
        self._frames += frames
        self.head += len(frames)
        self._trim()
        self._schedule()

    def frames(self, first: int) -> list[bytes]:
        """From `first` on, as far back as they are kept."""
        return self._frames[max(0, first - self.tail) :]

    def put_before(self, frames: list[bytes]) -> None:
        """Frames that are older than all here."""
        before = self._ends[0] - len(self._frames[0]) if self._frames else self._bytes
        ends = []
        for frame in reversed(frames):
            ends.append(before)
            before -= len(frame)
        self._frames[:0], self._ends[:0] = frames, reversed(ends)
        self.tail -= len(frames)

    def restart(self, head: int) -> None:
        """Without frames, at `head`; nobody may be level or apart."""
        self._frames.clear()
        self._ends.clear()
        self.head = self.tail = self._flushed = head

    def _trim(self) -> None:
        """Never what has not been flushed yet."""
        surplus = len(self._frames) - KEPT_FRAMES
        if self._frames and self._bytes - self._ends[0] > KEPT_BYTES:
            surplus = max(surplus, bisect_right(self._ends, self._bytes - KEPT_BYTES))
        surplus = min(surplus, self._flushed - self.tail)
        if surplus > len(self._frames) // 5:  # not one by one: cutting the front of a list moves the rest
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
        apart = tuple(self._apart)
        if self._flushed < self.head:
            self._flush_level()
        for watcher in apart:
            self._advance(watcher)

    def _flush_level(self) -> None:
        data = b"".join(self._frames[self._flushed - self.tail :])
        level, count = self._level, self.head - self._flushed
        self._flushed = self.head
        # The hot line: all that is done per watcher and flush.
        stuck = [watcher for watcher in level if not watcher.socket.write(data)]
        self._account(len(level), count, data)
        for watcher in stuck:
            self._set_apart(watcher)

    def _account(self, watchers: int, events: int, data: bytes) -> None:
        self.sent_events += watchers * events
        self.sent_bytes += watchers * len(data)

    def _set_apart(self, watcher: Watcher) -> None:
        """What it was given last waits in its socket, the next does here."""
        self._level.discard(watcher)
        watcher.cursor = watcher.counted_from = self._flushed
        self._apart.add(watcher)
        self.note_blocked(watcher)

    def _advance(self, watcher: Watcher) -> None:
        """Up to what is flushed, unless its socket is full; no more than 1 MiB before others have their
        turn."""
        for _ in range(SLICES_AT_ONCE):
            if watcher.socket.blocked:
                if self._behind_bytes(watcher) > MAX_BEHIND_BYTES:
                    self._drop(watcher)
                return
            data = next(watcher.prelude, b"")
            if data:
                self._account(1, 0, data)
            elif watcher.cursor > self._flushed:
                return  # it joined since
            elif watcher.cursor < self.tail:
                self._drop(watcher)
                return
            else:
                data = self._slice_of(watcher)
            if data and not watcher.socket.write(data):
                self.note_blocked(watcher)
            elif watcher.cursor == self._flushed and not data:
                self._apart.discard(watcher)
                self._level.add(watcher)
                return
        if self._timer is None:
            wait_s = self._settings.flush_interval_s
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.flush)

    def _slice_of(self, watcher: Watcher) -> bytes:
        """The next frames of a watcher that stands apart, as many as go into a slice; at least one, if there
        is one."""
        first, last = watcher.cursor - self.tail, self._flushed - self.tail
        if first == last:
            return b""
        limit = self._ends[first] - len(self._frames[first]) + SLICE_BYTES
        last = min(last, max(first + 1, bisect_right(self._ends, limit, first)))
        data = b"".join(self._frames[first:last])
        self._account(1, last - first, data)
        watcher.cursor += last - first
        return data

    # -- who is slow

    def catch_up(self, watcher: Watcher) -> None:
        """Its buffer drained."""
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
        unsent = watcher.socket.unsent_bytes()
        if watcher not in self._apart:
            return unsent
        if watcher.cursor < self.tail:
            return MAX_BEHIND_BYTES + 1
        index = max(watcher.cursor, watcher.counted_from) - self.tail
        pending = self._bytes - self._ends[index] + len(self._frames[index]) if index < len(self._ends) else 0
        return pending + unsent

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
