"""Whether a room answers, as a door can tell."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal, get_args

from fleet.errors import FleetError

State = Literal["ok", "down", "crash_loop"]
STATES: tuple[State, ...] = get_args(State)  # the worst last
PULSE_S = 1.0
ANSWER_S = 3.0
DYING_S = 60.0  # so many lives within so many seconds are no accident
LIVES = 5


class Lives:
    """`pulse` gives a name that each life of the room has for itself. Bound: the last `LIVES` are known."""

    def __init__(self, pulse: Callable[[], Awaitable[str]]) -> None:
        self._pulse = pulse
        self._life = ""
        self._begun: deque[float] = deque(maxlen=LIVES)
        self._down = False

    async def feel(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                life = await self._pulse()
        except (FleetError, TimeoutError):
            self._down = True
        else:
            self.note(life, time.monotonic())

    def note(self, life: str, now_s: float) -> None:
        self._down = False
        if life != self._life:
            if self._life:
                self._begun.append(now_s)
            self._life = life

    def state(self, now_s: float) -> State:
        if len(self._begun) == LIVES and now_s - self._begun[0] < DYING_S:
            return "crash_loop"
        return "down" if self._down else "ok"
