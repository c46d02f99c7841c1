"""A bounded log of events that readers follow by (epoch, offset)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

import msgspec

from fleet.errors import Conflict, Misuse

MAX_FORMER = 64
_EPOCH = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Lineage(msgspec.Struct, frozen=True):
    """Which epochs tell one history. `former` has earlier ones, each with the offset at which it ended (the
    number of the first event that it did not see): a place that it named is good up to there and no further,
    so that a history restored from a backup is told apart from the one that went on after that backup."""

    epoch: str
    former: dict[str, int] = {}

    def holds(self, epoch: str, offset: int) -> bool:
        """Whether all that came before that place is part of this history."""
        return epoch == self.epoch or offset <= self.former.get(epoch, -1)


class FeedHistory(Lineage, frozen=True):
    """What the one that publishes a feed begins with: a journal, each of whose announced events has a number,
    without gaps. `head` is the number of the next; `events` are the newest ones, contiguous, up to it (as
    many as a feed keeps are enough). `epoch` is a random text of this opening of the journal and `former`
    names its earlier openings; of more than 64 the newest should stay. Raises Misuse for what cannot be."""

    head: int = 0
    events: list[bytes] = []

    def __post_init__(self) -> None:
        for epoch in (self.epoch, *self.former):
            if not _EPOCH.fullmatch(epoch):
                raise Misuse(f"an epoch has 1-64 of A-Za-z0-9_-, unlike {epoch!r}")
        if self.epoch in self.former or len(self.former) > MAX_FORMER:
            raise Misuse(f"an opening has an epoch of its own and at most {MAX_FORMER} former ones")
        if self.head < max(len(self.events), *self.former.values(), 0):
            raise Misuse("a history does not end before its own events or those of its former epochs")


class Page(msgspec.Struct, frozen=True):
    """Events [offset - len(events), offset) of a feed; read on from `offset`.

    `recovered` is false when the reader's place was lost: the events are then the oldest that are kept,
    with a hole before them that it must tell its own readers about. `current` is the feed's present
    state, for those that have one. `lineage` comes with an epoch that the reader did not name."""

    epoch: str
    offset: int
    events: list[bytes]
    recovered: bool = True
    current: bytes | None = None
    lineage: Lineage | None = None


class Batch(msgspec.Struct, frozen=True):
    """Events numbered first, first + 1, ... of one who publishes a feed by number and has those from `tail`
    to before `head`. `current` is the feed's state after all of them."""

    lineage: Lineage
    tail: int
    head: int
    first: int
    events: list[bytes]
    current: bytes | None = None


class Published(msgspec.Struct, frozen=True):
    """Answer to a publisher: what it should send next."""

    epoch: str
    next_seq: int


class Feed:
    """Offsets are gap-free within an epoch. Bounds: `max_events` and `max_bytes`; the oldest go.

    `start` is the offset of the first event, so that a feed may share the numbers of a journal. A feed
    whose epoch is "" has not begun: its first publisher says where it stands.
    """

    def __init__(self, epoch: str, max_events: int, max_bytes: int, start: int = 0) -> None:
        self.lineage = Lineage(epoch)
        self.head = self._due = start
        self.current: bytes | None = None
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._bytes = 0
        self._events: deque[bytes] = deque()

    @property
    def epoch(self) -> str:
        return self.lineage.epoch

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

    def publish(self, batch: Batch) -> Published:
        """Takes what it does not have yet. The answer says where it stands, so that whichever of the two
        restarted, the other's knowledge continues: a feed that begins, or was told another history, begins at
        the batch's tail; one that is behind that tail has a hole. An epoch that is not the publisher's means
        that a later opening of the same journal publishes here."""
        if batch.lineage.epoch in self.lineage.former:
            return Published(self.epoch, self.head)
        if not batch.lineage.holds(self.epoch, self.head) or self.head < batch.tail:
            self._begin(batch.tail)
        self.lineage = batch.lineage
        self._due = max(self._due, batch.head)
        if batch.current is not None and batch.first + len(batch.events) >= self.head:
            self.current = batch.current
        if batch.first <= self.head:
            self.append(batch.events[self.head - batch.first :])
        return Published(self.epoch, self.head)

    def _begin(self, head: int) -> None:
        self.head = self._due = head
        self._events.clear()
        self._bytes = 0

    def read(self, epoch: str, offset: int, limit: int) -> Page:
        """At most `limit` events from `offset`. An empty `epoch` asks for the head. What the publisher has
        and is about to tell counts as here, though nothing of it can be read yet."""
        lineage = self.lineage if epoch != self.epoch else None
        end = max(self.head, self._due)
        if not epoch:
            return Page(self.epoch, end, [], True, self.current, lineage)
        recovered = self.lineage.holds(epoch, offset) and self.tail <= offset <= end
        offset = offset if recovered else self.tail
        # A deque is slow in its middle, so indexing it pays near its ends only, where live readers are.
        skip, count = offset - self.tail, max(0, min(limit, self.head - offset))
        events = [self._events[index] for index in range(skip, skip + count)]
        return Page(self.epoch, offset + count, events, recovered, self.current, lineage)


class FeedSource:
    """The publishing end of a feed whose events have numbers: what its broadcaster may have to be told again.
    Bounds as the feed's; a broadcaster that stays away for longer has a hole."""

    def __init__(self, history: FeedHistory, max_events: int, max_bytes: int) -> None:
        self._kept = Feed(history.epoch, max_events, max_bytes, history.head - len(history.events))
        self._kept.lineage = Lineage(history.epoch, history.former)
        self._kept.append(history.events)
        self._next = self._kept.head

    def append(self, events: Sequence[bytes], current: bytes | None = None) -> None:
        """`current` is the feed's state after these events, which may be none."""
        self._kept.append(events)
        self._kept.current = self._kept.current if current is None else current

    def batch(self, limit: int) -> Batch:
        """What to tell now; without events where nothing is new."""
        kept = self._kept
        first = max(self._next, kept.tail)
        events = kept.read(kept.epoch, first, limit).events
        return Batch(kept.lineage, kept.tail, kept.head, first, events, kept.current)

    def told(self, answer: Published) -> bool:
        """Whether there is more to tell. Raises Conflict if somebody else publishes: a later opening of the
        journal, or another under our name."""
        if answer.epoch != self._kept.epoch or answer.next_seq > self._kept.head:
            raise Conflict("another publishes this feed", "superseded")
        self._next = answer.next_seq
        return self._next < self._kept.head
