"""A socket and a clock that a test moves by hand, as far as fan-out sees them."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any


class Clock:
    """The loop as far as the hub sees it, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[..., None], *args: Any) -> Any:
        number = next(self._numbers)
        heapq.heappush(self._timers, (self.now + delay, number, partial(call, *args)))
        clock = self

        class Timer:
            def cancel(self) -> None:
                clock._timers = [timer for timer in clock._timers if timer[1] != number]
                heapq.heapify(clock._timers)

        return Timer()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()


class Socket:
    """Takes `room` bytes at once; the rest waits until it is drained."""

    def __init__(self) -> None:
        self.listener: Any = None
        self.blocked = False
        self.room = 1 << 40
        self.taken = b""
        self.waiting = b""
        self.aborted = False

    def write(self, frames: bytes) -> bool:
        if self.aborted:
            return True
        self.waiting += frames
        if self.blocked:
            return False
        self._take()
        self.blocked = bool(self.waiting)
        return not self.blocked

    def _take(self) -> None:
        self.taken, self.waiting = self.taken + self.waiting[: self.room], self.waiting[self.room :]

    def drain(self, most: int) -> None:
        """The peer reads up to `most` bytes of what waits."""
        self.taken, self.waiting = self.taken + self.waiting[:most], self.waiting[most:]
        if self.blocked and not self.waiting:
            self.blocked = False
            self.listener.on_writable()

    def unsent_bytes(self) -> int:
        return len(self.waiting)

    def abort(self) -> None:
        self.aborted = True
        self.listener.on_end()
