"""A feed against a plain list, with a publisher that repeats, leaves out and begins anew, and readers."""

from __future__ import annotations

import pytest
from conftest import search_further
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleet.feed import Batch, Feed, Lineage, Published

READERS = st.sampled_from(["x", "y"])


class FeedMachine(RuleBasedStateMachine):
    @initialize(start=st.integers(0, 1_000), events=st.integers(3, 12), size=st.integers(12, 60))
    def begin(self, start: int, events: int, size: int) -> None:
        self.bounds = (events, size)
        self.feed = Feed("e0", events, size, start)
        self.start = start
        self.all: list[bytes] = []  # every event that ever was, told or not: offset start + index
        self.openings = 0
        self.epoch_since = start  # offset at which the present epoch began, or its last hole ended
        self.current: bytes | None = None
        self.readers: dict[str, tuple[str, int]] = {}
        self.serial = 0

    @property
    def epoch(self) -> str:
        return f"e{self.openings}"

    def made(self, count: int) -> list[bytes]:
        """`count` new events, each unlike every other."""
        self.serial += count
        return [f"v{self.serial - i}".encode() for i in range(count)]

    def publish(self, first: int, events: list[bytes], tail: int, current: bytes | None = None) -> None:
        head = self.start + len(self.all)
        told = self.feed.publish(Batch(Lineage(self.epoch), tail, head, first, events, current))
        assert told == Published(self.epoch, self.start + len(self.all))

    @rule(fresh=st.integers(0, 5), again=st.integers(0, 6), state=st.booleans())
    def tell(self, fresh: int, again: int, state: bool) -> None:
        """`again` events were sent before: their answer was lost."""
        at = max(0, len(self.all) - again)
        self.all += self.made(fresh)
        current = f"s{self.serial}".encode() if state else None
        self.publish(self.start + at, self.all[at:], self.start, current)
        self.current = current or self.current

    @rule(cut=st.integers(1, 6))
    def tell_only_old_news(self, cut: int) -> None:
        """A late copy of a batch, its end long known, neither adds events nor sets the state back."""
        end = len(self.all) - cut
        if end > 0:
            at = max(0, end - 3)
            self.publish(self.start + at, self.all[at:end], self.start, b"old")

    @rule(untold=st.integers(1, 4), fresh=st.integers(0, 3))
    def leave_out(self, untold: int, fresh: int) -> None:
        """The publisher could not keep them."""
        self.all += self.made(untold)
        at = len(self.all)
        self.epoch_since = self.start + at
        self.all += self.made(fresh)
        self.publish(self.start + at, self.all[at:], self.start + at)

    @rule()
    def begin_anew(self) -> None:
        """Another history, which knows nothing of the one before."""
        self.openings += 1
        self.epoch_since = self.start + len(self.all)
        self.publish(self.epoch_since, [], self.epoch_since)

    @rule(count=st.integers(0, 5))
    def append(self, count: int) -> None:
        new = self.made(count)
        self.feed.append(new)
        self.all += new

    @rule(reader=READERS, limit=st.integers(1, 7))
    def follow(self, reader: str, limit: int) -> None:
        """A reader that keeps its place gets what comes next, or what is left and the news of a hole."""
        epoch, offset = self.readers.get(reader, ("", 0))
        page = self.feed.read(epoch, offset, limit)
        self.readers[reader] = (page.epoch, page.offset)
        head = self.start + len(self.all)
        assert page.epoch == self.epoch
        if not epoch:
            assert (page.events, page.offset, page.recovered) == ([], head, True)
            return
        assert page.recovered == (epoch == page.epoch and offset >= self.feed.tail)
        offset = offset if page.recovered else self.feed.tail
        at = offset - self.start
        assert page.events == self.all[at : at + limit]
        assert page.offset == offset + len(page.events)

    @rule(
        epoch=st.sampled_from(["e0", "e1", "e2", "elsewhere"]),
        at=st.integers(-20, 60),
        limit=st.integers(1, 9),
    )
    def read_anywhere(self, epoch: str, at: int, limit: int) -> None:
        offset = self.start + at
        page = self.feed.read(epoch, offset, limit)
        known = epoch == self.epoch and self.feed.tail <= offset <= self.feed.head
        assert page.recovered == known
        begin = at if known else self.feed.tail - self.start
        assert page.events == self.all[begin : begin + limit]
        assert page.offset == self.start + begin + len(page.events)
        assert page.current == self.current

    @invariant()
    def its_bounds_hold_and_nothing_is_dropped_before_it_must(self) -> None:
        if not hasattr(self, "feed"):
            return
        max_events, max_bytes = self.bounds
        assert self.feed.head == self.start + len(self.all)
        held = self.all[self.feed.tail - self.start :]
        assert len(held) <= max_events
        assert sum(map(len, held)) <= max_bytes
        assert self.feed.tail >= self.epoch_since
        if self.feed.tail > self.epoch_since:
            longer = self.all[self.feed.tail - self.start - 1 :]
            assert len(longer) > max_events or sum(map(len, longer)) > max_bytes


TestAFeedAgreesWithAPlainList = FeedMachine.TestCase
TestAFeedAgreesWithAPlainList.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.long
def test_a_feed_agrees_with_its_model_on_many_more_examples() -> None:
    search_further(FeedMachine)


def test_an_event_above_the_byte_bound_is_counted_and_not_kept() -> None:
    feed = Feed("e", 10, 5)
    feed.append([b"ab", b"123456"])
    assert (feed.tail, feed.head) == (2, 2)
    assert not feed.read("e", 0, 5).recovered
