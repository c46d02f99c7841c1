"""The latest of each robot, now and then: for watchers who want what is, not all that was."""

from __future__ import annotations

import asyncio
from bisect import bisect_right

from api.fanout import Fanout, Watcher
from api.settings import Settings
from api.websocket_protocol import FleetSocket, text_frame

# What is asked for is rounded down to one of these, so that there are few groups of watchers.
PERIODS_MS = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000)
PARTS = 10  # of a period: each robot has its turn in one of them, and not the whole fleet at once
_AFTER_KEY = b'","status":'


def period_ms(asked: str) -> int | None:
    """The period for `?conflate=`, None if it is no number of milliseconds in 50-60000."""
    if not (asked.isascii() and asked.isdigit() and len(asked) <= 5):
        return None
    if not PERIODS_MS[0] <= int(asked) <= PERIODS_MS[-1]:
        return None
    return PERIODS_MS[bisect_right(PERIODS_MS, int(asked)) - 1]


class Conflation:
    """Of robot-status: one fan-out per period that somebody wants, each told the latest event of each robot
    once a period, if there is a new one. Bound: an event per robot and period; watchers who do not read go
    as they do everywhere."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._groups: dict[int, _Group] = {}
        self.missed = False  # events: what the robots' state is since, a snapshot must tell

    @property
    def fanouts(self) -> list[Fanout]:
        return [group.fanout for group in self._groups.values()]

    def __len__(self) -> int:
        return sum(map(len, self.fanouts))

    def add(self, socket: FleetSocket, period_ms: int) -> Watcher:
        if period_ms not in self._groups:
            self._groups[period_ms] = _Group(period_ms / 1_000, self._settings)
        return self._groups[period_ms].fanout.join(socket)

    def push(self, events: list[bytes]) -> None:
        for group in self._groups.values():
            if len(group.fanout):
                group.push(events)

    def catch_up(self, state: list[bytes]) -> None:
        """The latest event of each robot, taken after a hole. What came since the hole stays: if the state
        is newer, its event is still to come."""
        self.missed = False
        for group in self._groups.values():
            if len(group.fanout):
                group.fill(state)


class _Group:
    """A timer per group, which runs while something waits."""

    def __init__(self, period_s: float, settings: Settings) -> None:
        self.fanout = Fanout(settings)
        self._part_s = period_s / PARTS
        self._parts: list[dict[bytes, bytes]] = [{} for _ in range(PARTS)]
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def push(self, events: list[bytes]) -> None:
        parts = self._parts
        for event in events:
            key = event[: event.find(_AFTER_KEY)]
            parts[hash(key) % PARTS][key] = event
        self._begin()

    def fill(self, events: list[bytes]) -> None:
        for event in events:
            key = event[: event.find(_AFTER_KEY)]
            self._parts[hash(key) % PARTS].setdefault(key, event)
        self._begin()

    def _begin(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._part_s, self._tell)

    def _tell(self) -> None:
        """One part of the robots; those that were heard of first in it come first."""
        self._next = (self._next + 1) % PARTS
        part, self._parts[self._next] = self._parts[self._next], {}
        self.fanout.push([text_frame(event) for event in part.values()])
        waits = any(self._parts)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._part_s, self._tell) if waits else None
