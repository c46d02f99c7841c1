"""One clock for the actors of a load test, in microseconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
ASKS = 9


class Reading(msgspec.Struct, frozen=True):
    """`machine`: those with the same have one monotonic clock."""

    machine: str
    now_us: int


def _now_us() -> int:
    return time.monotonic_ns() // 1_000


def _machine() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Clock:
    """The conductor's monotonic clock, as far as it is known here."""

    def __init__(self) -> None:
        self._offset_us = 0

    def now_us(self) -> int:
        return _now_us() + self._offset_us

    def ns_of(self, at_us: int) -> int:
        """Of this machine's own monotonic clock."""
        return (at_us - self._offset_us) * 1_000

    def set(self, offset_us: int) -> None:
        self._offset_us = offset_us


class Clocked:
    """An actor whose clock can be read and set."""

    def __init__(self) -> None:
        self.clock = Clock()

    async def read_clock(self) -> Reading:
        return Reading(_machine(), _now_us())

    async def set_clock(self, offset_us: int) -> None:
        self.clock.set(offset_us)


async def agree(actor: Any) -> float:
    """Sets the clock of an actor to ours; returns how far it may be off, in milliseconds. By Cristian (1989):
    the answer that came soonest was read halfway in between, give or take half of its time."""
    best_us, offset_us = 2**62, 0
    for _ in range(ASKS):
        asked_us = _now_us()
        reading: Reading = await actor.read_clock()
        took_us = _now_us() - asked_us
        if reading.machine and reading.machine == _machine():
            return 0.0
        if took_us < best_us:
            best_us, offset_us = took_us, asked_us + took_us // 2 - reading.now_us
    await actor.set_clock(offset_us)
    return best_us / 2_000
