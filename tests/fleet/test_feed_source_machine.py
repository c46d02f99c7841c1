"""A feed that is told a journal by number, while publisher, broadcaster and journal come and go."""

from __future__ import annotations

from copy import copy

import pytest
from conftest import search_further
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fleet.errors import Conflict, Misuse
from fleet.feed import Batch, Feed, FeedHistory, FeedSource, Page, Published

READERS = st.sampled_from(["x", "y"])
BYTES = 10_000


class Reader:
    """Keeps what it heard since the last gap, and where that began."""

    def __init__(self) -> None:
        self.epoch = ""
        self.offset = 0
        self.heard: list[bytes] = []
        self.gaps = 0

    def take(self, page: Page) -> None:
        if not self.epoch or not page.recovered:
            self.gaps += bool(self.epoch)
            self.heard = []
        self.epoch, self.offset = page.epoch, page.offset
        self.heard = self.heard + page.events  # a copy keeps its own


class FedFeed(RuleBasedStateMachine):
    @initialize(kept=st.integers(2, 12))
    def begin(self, kept: int) -> None:
        self.kept = kept
        self.journal: list[bytes] = []
        self.former: dict[str, int] = {}
        self.epoch = "e0"
        self.openings = 0
        self.backup: tuple[list[bytes], dict[str, int]] | None = None
        self.serial = 0
        self.readers = {"x": Reader(), "y": Reader()}
        self.lost = True  # what readers hold may be no part of the journal any more, or of nobody's memory
        self.late: list[tuple[FeedSource, Batch]] = []
        self.start_publisher()
        self.restart_broadcaster()

    def start_publisher(self) -> None:
        newest = self.journal[-self.kept :]
        history = FeedHistory(self.epoch, dict(self.former), len(self.journal), newest)
        self.source = FeedSource(history, self.kept, BYTES)

    def reopen(self) -> None:
        """Every opening of the journal notes where the one before it ended."""
        self.former = {**self.former, self.epoch: len(self.journal)}
        self.openings += 1
        self.epoch = f"e{self.openings}"
        self.start_publisher()

    @rule(count=st.integers(0, 5), announced=st.booleans())
    def happen(self, count: int, announced: bool) -> None:
        """What is committed may be lost by its publisher before it is told: that dies then."""
        events = [f"{self.epoch}.{self.serial + number}".encode() for number in range(count)]
        self.serial += count
        self.journal += events
        if announced:
            self.source.append(events)
        else:
            self.reopen()

    @rule(limit=st.integers(1, 4), arrives=st.booleans(), answered=st.booleans())
    def tell(self, limit: int, arrives: bool, answered: bool) -> None:
        batch = self.source.batch(limit)
        if not arrives:
            self.late.append((self.source, batch))
            return
        answer = self.feed.publish(batch)
        self.informed = (self.epoch, len(self.journal))
        if answered:
            self.source.told(answer)

    @rule()
    def a_late_copy_arrives(self) -> None:
        """Of a batch that was sent again meanwhile, by this publisher or one before it."""
        if not self.late:
            return
        source, batch = self.late.pop(0)
        answer = self.feed.publish(batch)
        if answer.epoch != batch.lineage.epoch:
            with pytest.raises(Conflict):
                source.told(answer)

    @rule()
    def restart_publisher(self) -> None:
        self.reopen()

    @rule()
    def restart_broadcaster(self) -> None:
        self.feed = Feed("", self.kept, BYTES)
        self.informed = ("", 0)  # of which epoch, up to where, the broadcaster heard
        # A copy that is late by so much would tell an empty broadcaster of a history that is over.
        self.late = []

    @rule()
    def back_up(self) -> None:
        self.backup = list(self.journal), dict(self.former) | {self.epoch: len(self.journal)}

    @rule()
    def restore(self) -> None:
        if self.backup is None:
            return
        journal, former = self.backup
        self.journal, self.former = list(journal), dict(former)
        self.openings += 1
        self.epoch = f"e{self.openings}"
        self.late = []
        self.start_publisher()

    def catch_up(self) -> None:
        while self.source.told(self.feed.publish(self.source.batch(3))):
            pass

    @rule(name=READERS, limit=st.integers(1, 5))
    def read(self, name: str, limit: int) -> None:
        """What a reader heard since its last gap is a piece of the journal: each event once, in order."""
        if not self.feed.epoch:
            return
        reader = self.readers[name]
        before = copy(reader)
        reader.take(self.feed.read(reader.epoch, reader.offset, limit))
        first = reader.offset - len(reader.heard)
        if self.informed == (self.epoch, len(self.journal)):
            assert reader.heard == self.journal[first : reader.offset]
            self.no_needless_gap(before, reader)

    @rule(name=READERS)
    def read_to_the_end(self, name: str) -> None:
        reader = self.readers[name]
        self.catch_up()
        before = copy(reader)
        while True:
            page = self.feed.read(reader.epoch, reader.offset, 3)
            reader.take(page)
            if not page.events and reader.epoch == page.epoch and page.recovered:
                break
        assert reader.offset == len(self.journal)
        first = reader.offset - len(reader.heard)
        assert reader.heard == self.journal[first:]
        self.no_needless_gap(before, reader)

    def no_needless_gap(self, before: Reader, after: Reader) -> None:
        """Who stood in this journal's own past, no further back than is kept, loses nothing."""
        if not before.epoch:
            return
        first = before.offset - len(before.heard)
        own = before.heard == self.journal[first : before.offset]
        known = before.epoch == self.epoch or before.offset <= self.former.get(before.epoch, -1)
        assert own or after.gaps > before.gaps
        if known and own and before.offset >= self.feed.tail:
            assert after.gaps == before.gaps
        if after.gaps == before.gaps:
            assert after.heard[: len(before.heard)] == before.heard


TestAFedFeedTellsEachNumberOnceOrAGap = FedFeed.TestCase
TestAFedFeedTellsEachNumberOnceOrAGap.settings = settings(max_examples=200, stateful_step_count=40)


@pytest.mark.long
def test_a_fed_feed_on_many_more_examples() -> None:
    search_further(FedFeed)


def events(*names: str) -> list[bytes]:
    return [name.encode() for name in names]


def all_of(source: FeedSource, feed: Feed) -> None:
    while source.told(feed.publish(source.batch(2))):
        pass


def test_a_broadcaster_that_forgot_everything_is_told_again_and_its_readers_lose_nothing() -> None:
    source = FeedSource(FeedHistory("a"), 100, BYTES)
    source.append(events("0", "1", "2"), b"state")
    all_of(source, Feed("", 100, BYTES))
    feed = Feed("", 100, BYTES)
    all_of(source, feed)
    assert feed.read("a", 1, 10) == Page("a", 3, events("1", "2"), True, b"state")


def test_what_is_about_to_be_told_again_is_not_lost() -> None:
    source = FeedSource(FeedHistory("a"), 100, BYTES)
    source.append(events("0", "1", "2"))
    all_of(source, Feed("", 100, BYTES))
    late = source.batch(2)
    source.append(events("3"))
    feed = Feed("", 100, BYTES)
    source.told(feed.publish(source.batch(2)))  # it thought that it had told all but the last
    feed.publish(late)
    assert feed.read("a", 2, 10) == Page("a", 2, [], True)
    assert feed.read("", 0, 10).offset == 4
    assert not feed.read("a", 5, 10).recovered
    all_of(source, feed)
    assert feed.read("a", 2, 10).events == events("2", "3")


def test_a_publisher_that_restarts_continues_where_the_broadcaster_stands() -> None:
    feed = Feed("", 100, BYTES)
    source = FeedSource(FeedHistory("a"), 100, BYTES)
    source.append(events("0", "1"))
    all_of(source, feed)
    again = FeedSource(FeedHistory("b", {"a": 4}, 4, events("2", "3")), 100, BYTES)
    all_of(again, feed)
    page = feed.read("a", 1, 10)
    assert (page.epoch, page.events, page.recovered) == ("b", events("1", "2", "3"), True)
    assert page.lineage == again.batch(1).lineage


def test_a_place_beyond_the_end_of_its_epoch_is_no_place() -> None:
    """A backup restored: what was told after it was made never happened."""
    feed = Feed("", 100, BYTES)
    source = FeedSource(FeedHistory("a"), 100, BYTES)
    source.append(events("0", "1", "2", "3"))
    all_of(source, feed)
    restored = FeedSource(FeedHistory("c", {"a": 2}, 2, events("0", "1")), 100, BYTES)
    all_of(restored, feed)
    assert feed.read("", 0, 10).offset == 2
    restored.append(events("else", "what"))
    all_of(restored, feed)
    assert not feed.read("a", 4, 10).recovered
    assert not feed.read("a", 3, 10).recovered
    assert feed.read("a", 2, 10).events == events("else", "what")


def test_what_a_publisher_could_not_keep_is_a_hole_without_a_new_epoch() -> None:
    feed = Feed("", 3, BYTES)
    source = FeedSource(FeedHistory("a"), 3, BYTES)
    source.append(events("0"))
    all_of(source, feed)
    source.append(events("1", "2", "3", "4"))
    all_of(source, feed)
    page = feed.read("a", 1, 10)
    assert (page.recovered, page.events, page.offset) == (False, events("2", "3", "4"), 5)


def test_the_opening_before_the_present_one_is_refused_and_changes_nothing() -> None:
    feed = Feed("", 100, BYTES)
    old = FeedSource(FeedHistory("a"), 100, BYTES)
    all_of(FeedSource(FeedHistory("b", {"a": 0}), 100, BYTES), feed)
    old.append(events("zombie"))
    with pytest.raises(Conflict):
        all_of(old, feed)
    assert (feed.epoch, feed.head) == ("b", 0)


def test_a_late_copy_does_not_set_the_state_back() -> None:
    feed = Feed("", 100, BYTES)
    source = FeedSource(FeedHistory("a"), 100, BYTES)
    source.append(events("0"), b"old")
    late = source.batch(10)
    source.append(events("1"), b"new")
    all_of(source, feed)
    assert feed.publish(late) == Published("a", 2)
    assert feed.current == b"new"


@pytest.mark.parametrize(
    "history",
    [
        {"epoch": ""},
        {"epoch": "a:b"},
        {"epoch": "a" * 65},
        {"epoch": "a", "former": {"a": 0}},
        {"epoch": "a", "former": {"b c": 0}},
        {"epoch": "a", "former": {"b": 1}},
        {"epoch": "a", "head": 1, "events": [b"0", b"1"]},
        {"epoch": "a", "former": {f"b{n}": 0 for n in range(65)}},
    ],
)
def test_a_history_that_cannot_be_is_refused(history: dict[str, object]) -> None:
    with pytest.raises(Misuse):
        FeedHistory(**history)  # type: ignore[arg-type]
