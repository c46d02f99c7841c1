"""A bounded log of events that readers follow by (epoch, offset)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec


class Page(msgspec.Struct, frozen=True):
    """Events [offset - len(events), offset) of a feed; read on from `offset`.

    `recovered` is false when the reader's place was lost: the events are then the oldest that are kept,
    with a hole before them that it must tell its own readers about. `current` is the feed's present
    state, for those that have one."""

    epoch: str
    offset: int
    events: list[bytes]
    recovered: bool = True
    current: bytes | None = None


class Published(msgspec.Struct, frozen=True):
    """Answer to a publisher: what it should send next."""

    epoch: str
    next_seq: int


class Feed:
    """Offsets are gap-free within an epoch. Bounds: `max_events` and `max_bytes`; the oldest go.

    `start` is the offset of the first event, so that a feed may share the numbers of a journal.
    """

    def __init__(self, epoch: str, max_events: int, max_bytes: int, start: int = 0) -> None:
        self.epoch = self._birth = epoch
        self._losses = 0
        self.head = start
        self.current: bytes | None = None
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._bytes = 0
        self._events: deque[bytes] = deque()
        self._next_seq: dict[str, int] = {}

    @property
    def tail(self) -> int:
        """Offset of the oldest event that is kept."""
        return self.head - len(self._events)

    def append(self, events: Sequence[bytes]) -> None:
        for event in events:
            self._events.append(event)
            self._bytes += len(event)
        self.head += len(events)
        while len(self._events) > self._max_events or self._bytes > self._max_bytes:
            self._bytes -= len(self._events.popleft())

    def publish(
        self, publisher: str, seq: int, events: Sequence[bytes], current: bytes | None = None
    ) -> Published:
        """Takes events numbered seq, seq + 1, ... of one publisher; what it has seen it drops, so a
        publisher may repeat a batch whose answer was lost. At most 1,024 publishers are remembered."""
        expected = self._next_seq.pop(publisher, seq)
        if seq > expected:
            self._lose_history()
        fresh = events[max(0, expected - seq) :]
        self._next_seq[publisher] = max(expected, seq + len(events))
        if len(self._next_seq) > 1_024:
            self._next_seq.pop(next(iter(self._next_seq)))
        if fresh:
            self.append(fresh)
        if current is not None and seq + len(events) >= expected:
            self.current = current
        return Published(self.epoch, self._next_seq[publisher])

    def _lose_history(self) -> None:
        """A publisher skipped events that it could not hold: readers must learn of the hole."""
        self._losses += 1
        self.epoch = f"{self._birth}-{self._losses}"
        self._events.clear()
        self._bytes = 0

    def read(self, epoch: str, offset: int, limit: int) -> Page:
        """At most `limit` events from `offset`. An empty `epoch` asks for the head."""
        if not epoch:
            return Page(self.epoch, self.head, [], True, self.current)
        recovered = epoch == self.epoch and self.tail <= offset <= self.head
        offset = offset if recovered else self.tail
        # A deque is slow in its middle, so indexing it pays near its ends only, where live readers are.
        skip, count = offset - self.tail, min(limit, self.head - offset)
        events = [self._events[index] for index in range(skip, skip + count)]
        return Page(self.epoch, offset + count, events, recovered, self.current)
