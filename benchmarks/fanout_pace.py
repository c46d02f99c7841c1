"""What a server of the fan-out benchmark is given to send, and when."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from fleet.events import JobStatusChanged, encode


class Event(msgspec.Struct, frozen=True):
    """Encoded beforehand in each form that a server takes: making it is nobody's fan-out."""

    data: bytes
    text: str
    fields: dict[str, Any]


def make_events(count: int) -> list[Event]:
    """No two alike, so that compression gains what it would gain on real ids."""
    rng, events = random.Random(1), []
    for number in range(count):
        at = f"2025-01-15T10:30:{number % 60:02}.{rng.randrange(1_000):03}Z"
        data = encode(JobStatusChanged(f"job-{rng.randbytes(10).hex()}", "completed", at))
        events.append(Event(data, data.decode(), json.loads(data)))
    return events


EVENTS = make_events(1_000)


class Served(msgspec.Struct, frozen=True):
    """`send` returns when the server has taken the events: in-process, or with an answer."""

    port: int
    pid: int
    send: Callable[[list[Event]], Awaitable[None]]


class Load(msgspec.Struct, frozen=True):
    """With no events it is the same loop, idle."""

    flushes: int
    events: int
    pace_s: float


async def paced(load: Load, served: Served) -> None:
    """A flush that takes longer than the pace is followed by a pause, so that flushes do not merge."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    for number in range(load.flushes):
        await asyncio.sleep(due_s - loop.time())
        start_s = loop.time()
        if load.events:
            first = number * load.events % (len(EVENTS) - load.events)
            await served.send(EVENTS[first : first + load.events])
        took_s = loop.time() - start_s
        due_s = max(due_s + load.pace_s, loop.time() + min(took_s, load.pace_s))
    await asyncio.sleep(load.pace_s)
