"""The wheel of pings, with the clock moved by hand."""

from __future__ import annotations

import secrets
from types import SimpleNamespace
from typing import Any

import pytest

from api.keepalive import SLOTS, Keepalive
from api.settings import load


class Peer:
    """What the wheel needs of a socket; answers pings at once, or never."""

    def __init__(self, answers: bool) -> None:
        self.answers = answers
        self.unanswered_ping: bytes | None = None
        self.pinged_at: list[float] = []
        self.aborted_at: list[float] = []
        self.now = 0.0
        self.reading = True
        self.transport = SimpleNamespace(is_reading=lambda: self.reading)

    def write(self, frames: bytes) -> bool:
        assert frames[:2] == b"\x89\x04"
        assert frames[2:] == self.unanswered_ping
        self.pinged_at.append(self.now)
        if self.answers:
            self.unanswered_ping = None
        return True

    def abort(self) -> None:
        self.aborted_at.append(self.now)


def turn(wheel: Keepalive, peers: list[Any], start_s: float, seconds: float, tick_s: float = 1.0) -> None:
    for number in range(1, round(seconds / tick_s) + 1):
        for peer in peers:
            peer.now = start_s + number * tick_s
        wheel.tick(start_s + number * tick_s)


def default_wheel() -> Keepalive:
    settings = load(jwt_secret_key=secrets.token_hex(32))
    return Keepalive(settings.ping_interval_s, settings.ping_timeout_s)


@pytest.mark.parametrize("came_s", [0, 1, 7, SLOTS - 1, SLOTS + 3])
def test_a_socket_is_pinged_every_20_s_from_whenever_it_came(came_s: int) -> None:
    wheel, peer = default_wheel(), Peer(answers=True)
    turn(wheel, [], 0, came_s)
    wheel.add(peer)  # type: ignore[arg-type]
    turn(wheel, [peer], came_s, 60)
    assert peer.pinged_at == [came_s + 20, came_s + 40, came_s + 60]
    assert peer.aborted_at == []


def test_who_does_not_answer_is_aborted_within_31_s_and_pinged_once_only() -> None:
    wheel, mute, well = default_wheel(), Peer(answers=False), Peer(answers=True)
    wheel.add(mute)  # type: ignore[arg-type]
    wheel.add(well)  # type: ignore[arg-type]
    turn(wheel, [mute, well], 0, 31)
    assert mute.pinged_at == [20]
    assert len(mute.aborted_at) == 1
    assert 30 <= mute.aborted_at[0] <= 31
    assert well.aborted_at == []


def test_who_is_not_read_cannot_be_late_with_an_answer() -> None:
    wheel, mute = default_wheel(), Peer(answers=False)
    mute.reading = False
    wheel.add(mute)  # type: ignore[arg-type]
    turn(wheel, [mute], 0, 60)
    assert mute.aborted_at == []


def test_a_timeout_longer_than_the_interval_is_waited_out() -> None:
    wheel, mute = Keepalive(20, 50), Peer(answers=False)
    wheel.add(mute)  # type: ignore[arg-type]
    turn(wheel, [mute], 0, 69)
    assert (mute.pinged_at, mute.aborted_at) == ([20], [])
    turn(wheel, [mute], 69, 1)
    assert mute.aborted_at == [70]


def test_a_socket_that_left_is_neither_pinged_nor_aborted() -> None:
    wheel, mute = default_wheel(), Peer(answers=False)
    wheel.add(mute)  # type: ignore[arg-type]
    turn(wheel, [mute], 0, 25)
    wheel.remove(mute)  # type: ignore[arg-type]
    turn(wheel, [mute], 25, 60)
    assert (mute.pinged_at, mute.aborted_at) == ([20], [])
