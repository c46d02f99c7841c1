"""What a watcher that asked for `v=2` hears: events with their places, and what happened to them.

Every message has `type`, `epoch`, `offset` and `data`. `epoch` and `offset` name the place after the message:
who comes back with it misses nothing. They are null where coming back must not skip what is still to come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from fleet.events import FEED_OF, encode

_PLACE = re.compile(r"([A-Za-z0-9_-]{1,64}):(0|[1-9][0-9]{0,17})")
_TYPE_OF = {feed: str(kind) for kind, feed in FEED_OF.items()}

PART_BYTES = 32 * 1024


class Place(msgspec.Struct, frozen=True):
    """After the first `offset` events of a feed."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"


def place_of(text: str) -> Place | None:
    """What `?since=` names, or None."""
    found = _PLACE.fullmatch(text)
    return Place(found[1], int(found[2])) if found else None


class Welcome(msgspec.Struct, frozen=True):
    """`recovered`: what follows continues exactly after the place that was asked for."""

    recovered: bool


class Fault(msgspec.Struct, frozen=True):
    """Something is wrong with what the watcher asked for."""

    code: str
    detail: str


class Gap(msgspec.Struct, frozen=True):
    """Events were lost to this watcher; a snapshot follows. `expired`: they are not kept any more; `unknown`:
    the place is none of this stream's history, which may itself have been lost."""

    reason: Literal["expired", "unknown"]


class Snapshot(msgspec.Struct, frozen=True):
    """A part of the latest state: per robot, or per job, one plain message. `complete`: all parts together
    leave no robot or live job out. The place comes with the last part."""

    part: int
    parts: int
    complete: bool
    items: list[msgspec.Raw]


class FeedState(msgspec.Struct, frozen=True):
    """The latest event of each robot or job of a feed, as JSON; `complete` if that is all of them."""

    items: list[bytes]
    complete: bool = True


Data = Welcome | Fault | Gap | Snapshot
TYPES: dict[type, str] = {Welcome: "hello", Fault: "error", Gap: "gap", Snapshot: "snapshot"}


class _Message(msgspec.Struct, frozen=True):
    type: str
    epoch: str | None
    offset: int | None
    data: Data


def message(place: Place | None, data: Data) -> bytes:
    epoch, offset = (place.epoch, place.offset) if place else (None, None)
    return encode(_Message(TYPES[type(data)], epoch, offset, data))


def numbered(feed: str, epoch: str, first: int, events: Sequence[bytes]) -> Iterator[bytes]:
    """The events of a feed, of which `first` were before them, each with its place."""
    head = b'{"type":"%s","epoch":"%s","offset":' % (_TYPE_OF[feed].encode(), epoch.encode())
    for offset, event in enumerate(events, first + 1):
        yield b'%s%d,"data":%s}' % (head, offset, event)


def snapshot_messages(place: Place, state: FeedState) -> list[bytes]:
    """The place after them comes with the last."""
    parts = list(parts_of(state.items))
    return [
        message(
            place if number == len(parts) else None,
            Snapshot(number, len(parts), state.complete, [msgspec.Raw(item) for item in part]),
        )
        for number, part in enumerate(parts, 1)
    ]


def parts_of(items: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Of 32 KiB, or of one item that is larger; at least one part, which may be empty."""
    part: list[bytes] = []
    size = 0
    for item in items:
        if part and size + len(item) > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item)
    yield part
