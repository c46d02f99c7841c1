"""A door's feed against a model: whatever restarts, whoever comes back from wherever, a watcher hears each
event once and in order, or is told of a gap and then of the latest state."""

from __future__ import annotations

import json
import secrets
from collections.abc import Coroutine, Iterator
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
from conftest import search_further
from fake_socket import Clock, Socket
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from api.hub import FeedHub
from api.settings import load
from fleet.feed import Feed, FeedHistory, FeedSource, Page
from fleet.stream_messages import FeedState

SETTINGS = load(jwt_secret_key=secrets.token_hex(32))
KEPT = 6
BYTES = 100_000


def messages(data: bytes) -> Iterator[Any]:
    """Of whole frames (RFC 6455 5.2)."""
    while len(data) > 10 or (len(data) > 2 and data[1] < 126):
        size, header = data[1], 2
        if size == 126:
            size, header = int.from_bytes(data[2:4], "big"), 4
        if len(data) < header + size:
            return
        yield json.loads(data[header : header + size])
        data = data[header + size :]


class Told:
    """What a numbered watcher heard: it knows all up to `offset` of `journal`, or waits for a snapshot."""

    def __init__(self, world: ResumeMachine, since: str | None) -> None:
        self.world = world
        self.since = since
        self.socket = Socket()
        self.epoch = ""
        self.offset = 0
        self.waits = False
        self.place: str | None = None

    def check(self) -> None:
        heard = list(messages(self.socket.taken))
        for number, message in enumerate(heard):
            assert (message["type"] == "hello") == (number == 0)
            getattr(self, message["type"])(message)
            if message["epoch"] is not None:
                self.epoch, self.offset = message["epoch"], message["offset"]
                self.place = f"{self.epoch}:{self.offset}"

    def hello(self, message: Any) -> None:
        recovered = message["data"]["recovered"]
        if recovered:
            epoch, offset = (self.since or "").split(":")
            assert message["offset"] == int(offset)
            assert self.world.journals[epoch] is self.world.journals[message["epoch"]]
        self.waits = self.since is not None and not recovered
        assert (message["epoch"] is None) == self.waits

    def error(self, message: Any) -> None:
        assert self.since == "garbage"

    def gap(self, message: Any) -> None:
        self.waits = True

    def snapshot(self, message: Any) -> None:
        assert self.waits
        [state] = message["data"]["items"]
        journal = self.world.ids[id(self.world.journals[message["epoch"]])]
        # Of a history that the door has not heard of yet: the next gap is at hand.
        assert state["j"] > journal or (state["j"] == journal and state["state"] >= message["offset"])
        self.waits = False

    def job_status_changed(self, message: Any) -> None:
        assert not self.waits
        assert message["offset"] == self.offset + 1
        journal = self.world.journals[message["epoch"]]
        assert journal is self.world.journals[self.epoch]
        assert json.loads(journal[message["offset"] - 1]) == message["data"]


class ResumeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.patches = [
            patch("api.fanout.asyncio.get_running_loop", lambda: self.clock),
            patch("api.recovery.SNAPSHOT_EVERY_S", 0),
            patch("api.recovery.PAUSE_S", 0),
            patch("api.fanout.KEPT_FRAMES", KEPT),
            patch("api.hub.FILL_FRAMES", 2),
        ]
        for each in self.patches:
            each.start()
        self.journals: dict[str, list[bytes]] = {}  # by epoch; those of one history share a list
        self.ids: dict[int, int] = {}
        self.opened = 0
        self.hub = FeedHub("live-jobs", SETTINGS)
        self.numbered: list[Told] = []
        self.plain: list[Socket] = []
        self.begin_anew()
        self.feed = Feed("", KEPT, BYTES)
        self.tell(5)
        self.hub.lineage = self.feed.lineage
        self.hub.ready.set()

    # -- the fleet

    @rule(really=st.integers(0, 4))
    def lose_history(self, really: int) -> None:
        if not really:
            self.begin_anew()

    def begin_anew(self) -> None:
        """A history that knows nothing of the one before."""
        self.journal: list[bytes] = []
        self.ids[id(self.journal)] = len(self.ids)
        self.keep = [*getattr(self, "keep", []), self.journal]
        self.former: dict[str, int] = {}
        self.open()

    def open(self) -> None:
        self.opened += 1
        self.epoch = f"e{self.opened}"
        self.journals[self.epoch] = self.journal
        newest = self.journal[-KEPT:]
        self.source = FeedSource(
            FeedHistory(self.epoch, dict(self.former), len(self.journal), newest), KEPT, BYTES
        )

    @rule()
    def restart_publisher(self) -> None:
        self.former |= {self.epoch: len(self.journal)}
        self.open()

    @rule()
    def restart_broadcaster(self) -> None:
        self.feed = Feed("", KEPT, BYTES)
        self.tell(1)

    @rule(count=st.integers(1, 6))
    def happen(self, count: int) -> None:
        events = [
            b'{"j":%d,"n":%d}' % (self.ids[id(self.journal)], len(self.journal) + n) for n in range(count)
        ]
        self.journal += events
        self.source.append(events)

    @rule(counts=st.lists(st.integers(1, 3), min_size=1, max_size=4))
    def flow(self, counts: list[int]) -> None:
        """As it does most of the time."""
        for count in counts:
            self.happen(count)
            self.tell(5)
            self.pump()
            self.clock.advance(0.01)

    @rule(limit=st.integers(1, 5))
    def tell(self, limit: int) -> None:
        self.source.told(self.feed.publish(self.source.batch(limit)))

    async def read(self, feed: str, epoch: str, offset: int, wait_ms: int) -> Page:
        return self.feed.read(epoch, offset, 4)

    async def state_of(self, feed: str) -> FeedState:
        return FeedState([b'{"j":%d,"state":%d}' % (self.ids[id(self.journal)], len(self.journal))])

    # -- the door

    @rule()
    def pump(self) -> None:
        self.hub.take(self.feed.read(self.hub.lineage.epoch, self.hub.offset, 4))

    @rule()
    def recover(self) -> None:
        run(self.hub.recovery.serve(self))  # type: ignore[arg-type]

    @rule(seconds=st.sampled_from([0.001, 0.02]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # -- watchers

    @rule(room=st.sampled_from([10, 1 << 40]))
    def join(self, room: int) -> None:
        socket = Socket()
        socket.room = room
        self.plain.append(socket)
        self.hub.add(socket)  # type: ignore[arg-type]

    @rule(room=st.sampled_from([0, 100, 1 << 40]), since=st.sampled_from([None, "", "garbage", "other:3"]))
    def join_numbered(self, room: int, since: str | None) -> None:
        told = Told(self, since)
        told.socket.room = room
        self.numbered.append(told)
        self.hub.add_numbered(told.socket, since)  # type: ignore[arg-type]

    @precondition(lambda self: self.numbered)
    @rule(pick=st.randoms(use_true_random=False))
    def come_back(self, pick: Any) -> None:
        """From where somebody was, perhaps while its first socket still hangs."""
        told = pick.choice(self.numbered)
        told.check()
        self.join_numbered(1 << 40, told.place)

    @rule(
        counts=st.lists(st.integers(1, 3), min_size=1, max_size=4),
        agos=st.lists(st.integers(-2, KEPT + 2), min_size=1, max_size=3),
        alone=st.booleans(),
        pick=st.randoms(use_true_random=False),
    )
    def come_from_anywhere(self, counts: list[int], agos: list[int], alone: bool, pick: Any) -> None:
        """From so many events ago, by any name that this history has had."""
        if alone:
            self.all_leave()
        self.flow(counts)
        epochs = [epoch for epoch, journal in self.journals.items() if journal is self.journal]
        for ago in agos:
            self.join_numbered(1 << 40, f"{pick.choice(epochs)}:{max(0, len(self.journal) - ago)}")

    @precondition(lambda self: self.numbered)
    @rule(pick=st.randoms(use_true_random=False), most=st.sampled_from([1, 100, 1 << 40]))
    def read_some(self, pick: Any, most: int) -> None:
        pick.choice(self.numbered).socket.drain(most)

    @precondition(lambda self: self.numbered)
    @rule(pick=st.randoms(use_true_random=False))
    def leave(self, pick: Any) -> None:
        told = pick.choice(self.numbered)
        if not told.socket.aborted:
            told.socket.abort()

    def all_leave(self) -> None:
        for told in self.numbered:
            if not told.socket.aborted:
                told.socket.abort()

    # -- what must hold

    def teardown(self) -> None:
        try:
            self.settle()
            for told in self.numbered:
                told.check()
                if not told.socket.aborted:
                    assert not told.waits
                    assert self.journals[told.epoch] is self.journal
                    assert told.offset == len(self.journal)
            for socket in (socket for socket in self.plain if not socket.aborted):
                check_plain(list(messages(socket.taken)), len(self.journal), self.ids[id(self.journal)])
            assert not self.hub.plain.held
            assert not self.hub.numbered.held
        finally:
            for each in self.patches:
                each.stop()

    def settle(self) -> None:
        """Everything is told and read; nothing else happens."""
        for socket in [*self.plain, *(told.socket for told in self.numbered)]:
            socket.room = 1 << 40
        self.happen(1)
        for _ in range(60):
            self.tell(5)
            self.pump()
            self.recover()
            self.clock.advance(1)
            for socket in [*self.plain, *(told.socket for told in self.numbered)]:
                if not socket.aborted:
                    socket.drain(1 << 40)


def run(work: Coroutine[Any, Any, None]) -> None:
    """What never really waits."""
    try:
        while True:
            work.send(None)
    except StopIteration:
        pass


def check_plain(heard: list[Any], length: int, journal: int) -> None:
    """Events that follow each other, except after the latest state, which has all that was missed."""
    assert heard[-1]["j"] == journal
    assert heard[-1].get("n", length - 1) == length - 1
    assert heard[-1].get("state", length) == length
    for before, after in pairwise(heard):
        if "state" in before and "n" in after:
            assert after["n"] <= before["state"] or after["j"] < before["j"]
        elif "n" in after:
            assert (after["j"], after["n"]) == (before["j"], before["n"] + 1)


TestResume = ResumeMachine.TestCase
TestResume.settings = settings(max_examples=120, stateful_step_count=40)


@pytest.mark.long
def test_search_further() -> None:
    search_further(ResumeMachine)
