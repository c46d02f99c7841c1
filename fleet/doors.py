"""What waits for each door to fetch it: answers to claims, and jobs that robots must stop."""

from __future__ import annotations

import itertools
from collections import deque
from random import Random

import msgspec

from fleet.limits import MS, Limits
from fleet.messages import Answer, Outbox

Item = Answer | tuple[str, str]  # or a robot and the job that it is to stop


class _Door(msgspec.Struct):
    """What a page of the same epoch has confirmed is dropped."""

    seen_ns: int
    epoch: int
    first: int = 0
    items: deque[Item] = msgspec.field(default_factory=deque)


class Doors:
    """A door that was not heard for `door_timeout_ms`, or never, starts a new epoch. Bound: `max_backlog`
    items a door; what is more it misses, and leases bring its jobs back."""

    def __init__(self, limits: Limits, rng: Random) -> None:
        self._limits = limits
        self._rng = rng
        self._doors: dict[str, _Door] = {}
        self.posted = 0  # how many items doors were ever sent; a change means news for one of them

    def hear(self, name: str, now_ns: int) -> None:
        self._door(name, now_ns)

    def post(self, name: str, item: Item) -> None:
        """A door that is gone misses it."""
        door = self._doors.get(name)
        if door is not None and len(door.items) < self._limits.max_backlog:
            door.items.append(item)
            self.posted += 1

    def page(self, name: str, epoch: int, cursor: int, now_ns: int) -> Outbox:
        """What the door has not seen; `cursor` confirms what it has, if `epoch` is still the same."""
        door = self._door(name, now_ns)
        while epoch == door.epoch and door.items and door.first < cursor:
            door.items.popleft()
            door.first += 1
        items = list(itertools.islice(door.items, self._limits.max_batch))
        answers = [item for item in items if isinstance(item, Answer)]
        cancels = [item for item in items if isinstance(item, tuple)]
        return Outbox(door.epoch, door.first + len(items), answers, cancels)

    def drop_silent(self, now_ns: int) -> set[str]:
        """The names of those that were not heard in time."""
        since_ns = now_ns - self._limits.door_timeout_ms * MS
        silent = {name for name, door in self._doors.items() if door.seen_ns < since_ns}
        for name in silent:
            del self._doors[name]
        return silent

    def _door(self, name: str, now_ns: int) -> _Door:
        door = self._doors.get(name)
        if door is None:
            door = self._doors[name] = _Door(now_ns, self._rng.getrandbits(53))
        door.seen_ns = now_ns
        return door
