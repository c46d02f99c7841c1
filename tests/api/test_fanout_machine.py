"""Fan-out against a model: every watcher gets each frame that is due to it once, in order, or is dropped."""

from __future__ import annotations

import secrets
from typing import Any
from unittest.mock import patch

import pytest
from conftest import search_further
from fake_socket import Clock, Socket
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from api.fanout import MAX_BEHIND_BYTES, Fanout
from api.settings import load
from api.websocket_protocol import text_frame

SETTINGS = load(jwt_secret_key=secrets.token_hex(32))


class FanoutMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.patch = patch("api.fanout.asyncio.get_running_loop", lambda: self.clock)
        self.patch.start()
        self.feed = Fanout(SETTINGS)
        self.frames: list[bytes] = []
        self.sockets: list[tuple[Socket, bytes, int]] = []  # with what it hears first, and from which frame

    def teardown(self) -> None:
        self._settle()
        self.patch.stop()

    def _settle(self) -> None:
        """Everything is flushed and read: nobody who is still there misses anything."""
        for socket, *_ in self.sockets:
            socket.room = 1 << 40
        for _ in range(40):
            self.clock.advance(1)
            for socket, *_ in self._open():
                socket.drain(1 << 40)
        for socket, first, since in self._open():
            assert socket.taken == first + b"".join(self.frames[since:])
        assert self.feed.lag_bytes() == 0

    def _open(self) -> list[tuple[Socket, bytes, int]]:
        return [each for each in self.sockets if not each[0].aborted]

    @rule(sizes=st.lists(st.integers(1, 60_000), min_size=1, max_size=4))
    def publish(self, sizes: list[int]) -> None:
        events = [b"%d:" % (len(self.frames) + at) + b"x" * size for at, size in enumerate(sizes)]
        self.frames += [text_frame(event) for event in events]
        self.feed.push([text_frame(event) for event in events])

    @rule(room=st.sampled_from([0, 10, 70_000, 1 << 40]))
    def join(self, room: int) -> None:
        socket = Socket()
        socket.room = room
        self.feed.join(socket)  # type: ignore[arg-type]
        self.sockets.append((socket, b"", len(self.frames)))

    @rule(
        room=st.sampled_from([0, 10, 70_000, 1 << 40]),
        ago=st.integers(-3, 60),
        first=st.lists(st.integers(1, 40_000), max_size=4),
    )
    def come_back(self, room: int, ago: int, first: list[int]) -> None:
        """From `ago` frames ago, or from some that are still to come, after pieces of its own."""
        since = max(0, len(self.frames) - ago)
        pieces = [text_frame(b"p" * size) for size in first]
        socket = Socket()
        socket.room = room
        watcher = self.feed.join(socket)  # type: ignore[arg-type]
        self.feed.hold(watcher)
        self.feed.begin(watcher, since, pieces)
        self.sockets.append((socket, b"".join(pieces), since))

    @precondition(lambda self: self._open())
    @rule(pick=st.randoms(use_true_random=False), room=st.sampled_from([0, 10, 70_000, 1 << 40]))
    def change_room(self, pick: Any, room: int) -> None:
        pick.choice(self._open())[0].room = room

    @precondition(lambda self: self._open())
    @rule(pick=st.randoms(use_true_random=False), most=st.sampled_from([1, 1_000, 1 << 40]))
    def read(self, pick: Any, most: int) -> None:
        pick.choice(self._open())[0].drain(most)

    @precondition(lambda self: self._open())
    @rule(pick=st.randoms(use_true_random=False))
    def leave(self, pick: Any) -> None:
        pick.choice(self._open())[0].abort()

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.3]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        stuck = {id(s) for s, *_ in self._open() if s.blocked}
        before = self.feed.slow_disconnects
        self.feed.sweep(self.clock.now)
        dropped = [s for s, *_ in self.sockets if s.aborted and id(s) in stuck]
        assert self.feed.slow_disconnects - before == len(dropped)

    @invariant()
    def what_was_sent_is_a_prefix_of_what_is_due(self) -> None:
        for socket, first, since in self._open():
            assert (first + b"".join(self.frames[since:])).startswith(socket.taken + socket.waiting)

    @invariant()
    def nobody_costs_more_than_a_mebibyte_and_a_flush(self) -> None:
        for socket, *_ in self._open():
            assert len(socket.waiting) <= MAX_BEHIND_BYTES + 4 * 60_100

    @invariant()
    def who_is_open_is_counted(self) -> None:
        assert len(self.feed) == len(self._open())


TestFanout = FanoutMachine.TestCase
TestFanout.settings = settings(max_examples=200, stateful_step_count=30)


@pytest.mark.long
def test_search_further() -> None:
    search_further(FanoutMachine)


def feed_with(count: int, clock: Clock) -> tuple[Fanout, list[Socket]]:
    feed = Fanout(SETTINGS)
    sockets = [Socket() for _ in range(count)]
    for socket in sockets:
        feed.join(socket)  # type: ignore[arg-type]
    return feed, sockets


def push(feed: Fanout, *events: bytes) -> None:
    feed.push([text_frame(event) for event in events])


@pytest.fixture
def clock() -> Any:
    clock = Clock()
    with patch("api.fanout.asyncio.get_running_loop", lambda: clock):
        yield clock


def test_the_first_event_goes_at_once_and_the_next_ones_together(clock: Clock) -> None:
    feed, [socket] = feed_with(1, clock)
    push(feed, b"a")
    assert socket.taken == text_frame(b"a")
    push(feed, b"b")
    push(feed, b"c")
    assert socket.taken == text_frame(b"a")
    clock.advance(SETTINGS.flush_interval_s)
    assert socket.taken == b"".join(map(text_frame, (b"a", b"b", b"c")))


def test_who_takes_nothing_for_a_second_is_dropped_and_who_takes_a_little_is_not(clock: Clock) -> None:
    feed, [mute, slow, late, well] = feed_with(4, clock)
    for room in (1 << 40, 10):  # at first they all keep up
        mute.room = slow.room = late.room = room
        push(feed, b"x" * 1_000)
        clock.advance(SETTINGS.flush_interval_s)
    assert feed.lag_bytes() == 1_004 - 10
    for _ in range(6):
        late.drain(1_000)  # all of it, at the first time
        clock.advance(0.25)
        slow.drain(10)
        feed.sweep(clock.now)
    assert (mute.aborted, slow.aborted, late.aborted, well.aborted) == (True, False, False, False)
    assert feed.slow_disconnects == 1


def test_a_watcher_a_mebibyte_behind_is_dropped_at_the_next_flush(clock: Clock) -> None:
    feed, [slow, well] = feed_with(2, clock)
    slow.room = 10
    for _ in range(20):
        push(feed, b"x" * 60_000)
        clock.advance(SETTINGS.flush_interval_s)
    assert (slow.aborted, well.aborted) == (True, False)


def test_more_events_at_once_than_are_kept_reach_everybody_who_keeps_up(clock: Clock) -> None:
    feed, [socket] = feed_with(1, clock)
    push(feed, b"first")
    events = [b"%d" % number for number in range(30_000)]
    push(feed, *events)
    clock.advance(SETTINGS.flush_interval_s)
    assert socket.taken == text_frame(b"first") + b"".join(map(text_frame, events))


def test_who_joins_between_two_flushes_hears_nothing_older_even_if_its_pong_got_stuck(clock: Clock) -> None:
    feed, [_] = feed_with(1, clock)
    push(feed, b"a")
    push(feed, b"b")
    joiner = Socket()
    joiner.room = 1
    feed.join(joiner).on_text(b"ping")  # type: ignore[arg-type]
    joiner.drain(100)
    clock.advance(SETTINGS.flush_interval_s)
    joiner.room = 100
    push(feed, b"c")
    clock.advance(SETTINGS.flush_interval_s)
    assert joiner.taken == text_frame(b"pong") + text_frame(b"c")


def test_what_was_sent_is_counted_without_looking_at_sockets(clock: Clock) -> None:
    feed, _ = feed_with(3, clock)
    push(feed, b"ab", b"c")
    assert (feed.sent_events, feed.sent_bytes) == (6, 3 * (4 + 3))
