"""A feed against a plain list, with publishers that repeat and skip and readers that follow."""

from __future__ import annotations

import pytest
from conftest import search_further
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleet.feed import Feed

PUBLISHERS = st.sampled_from(["p", "q", "r"])
READERS = st.sampled_from(["x", "y"])


class FeedMachine(RuleBasedStateMachine):
    @initialize(start=st.integers(0, 1_000), events=st.integers(3, 12), size=st.integers(12, 60))
    def begin(self, start: int, events: int, size: int) -> None:
        self.bounds = (events, size)
        self.feed = Feed("e", events, size, start)
        self.start = start
        self.all: list[bytes] = []  # every event that was ever taken, in order: offset start + index
        self.epochs = ["e"]
        self.epoch_since = start  # offset at which the present epoch began
        self.sent: dict[str, list[bytes]] = {}  # what each publisher numbered, holes included
        self.told: dict[str, int] = {}
        self.current: bytes | None = None
        self.readers: dict[str, tuple[str, int]] = {}
        self.serial = 0

    def made(self, publisher: str, count: int) -> list[bytes]:
        """`count` new events, each unlike every other."""
        self.serial += count
        return [f"{publisher}{self.serial - i}".encode() for i in range(count)]

    @rule(publisher=PUBLISHERS, fresh=st.integers(0, 5), again=st.integers(0, 6), state=st.booleans())
    def publish(self, publisher: str, fresh: int, again: int, state: bool) -> None:
        """`again` events were sent before: their answer was lost."""
        history = self.sent.setdefault(publisher, [])
        seq = max(0, len(history) - again)
        new = self.made(publisher, fresh)
        current = f"s{self.serial}".encode() if state else None
        told = self.feed.publish(publisher, seq, history[seq:] + new, current)
        history += new
        self.all += new
        self.current = current or self.current
        assert (told.epoch, told.next_seq) == (self.epochs[-1], len(history))

    @rule(publisher=PUBLISHERS, cut=st.integers(1, 6))
    def publish_only_old_news(self, publisher: str, cut: int) -> None:
        """A late copy of a batch, its end long known, neither adds events nor sets the state back."""
        history = self.sent.get(publisher, [])
        end = len(history) - cut
        if end <= 0:
            return
        told = self.feed.publish(publisher, max(0, end - 3), history[max(0, end - 3) : end], b"old")
        assert told.next_seq == len(history)

    @rule(publisher=PUBLISHERS, skipped=st.integers(1, 4), fresh=st.integers(0, 3))
    def skip(self, publisher: str, skipped: int, fresh: int) -> None:
        if publisher not in self.sent:
            return
        history = self.sent[publisher]
        history += self.made(publisher, skipped)
        new = self.made(publisher, fresh)
        self.epoch_since = self.start + len(self.all)
        told = self.feed.publish(publisher, len(history), new)
        history += new
        self.all += new
        assert told.epoch not in self.epochs
        assert told.next_seq == len(history)
        self.epochs.append(told.epoch)

    @rule(count=st.integers(0, 5))
    def append(self, count: int) -> None:
        new = self.made("own", count)
        self.feed.append(new)
        self.all += new

    @rule(reader=READERS, limit=st.integers(1, 7))
    def follow(self, reader: str, limit: int) -> None:
        """A reader that keeps its place gets what comes next, or what is left and the news of a hole."""
        epoch, offset = self.readers.get(reader, ("", 0))
        page = self.feed.read(epoch, offset, limit)
        self.readers[reader] = (page.epoch, page.offset)
        head = self.start + len(self.all)
        assert page.epoch == self.epochs[-1]
        if not epoch:
            assert (page.events, page.offset, page.recovered) == ([], head, True)
            return
        assert page.recovered == (epoch == page.epoch and offset >= self.feed.tail)
        offset = offset if page.recovered else self.feed.tail
        at = offset - self.start
        assert page.events == self.all[at : at + limit]
        assert page.offset == offset + len(page.events)

    @rule(
        epoch=st.sampled_from(["e", "e-1", "e-2", "elsewhere"]),
        at=st.integers(-20, 60),
        limit=st.integers(1, 9),
    )
    def read_anywhere(self, epoch: str, at: int, limit: int) -> None:
        offset = self.start + at
        page = self.feed.read(epoch, offset, limit)
        known = epoch == self.epochs[-1] and self.feed.tail <= offset <= self.feed.head
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


def test_a_feed_forgets_the_oldest_of_more_than_1024_publishers() -> None:
    feed = Feed("e", 10, 100)
    for number in range(1_025):
        feed.publish(str(number), 0, [b"x"])
    assert feed.publish("1", 0, [b"x"]).next_seq == 1
    assert feed.head == 1_025
    feed.publish("0", 0, [b"x"])
    assert feed.head == 1_026


def test_an_event_above_the_byte_bound_is_counted_and_not_kept() -> None:
    feed = Feed("e", 10, 5)
    feed.append([b"ab", b"123456"])
    assert (feed.tail, feed.head) == (2, 2)
    assert not feed.read("e", 0, 5).recovered
