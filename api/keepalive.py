"""Pings for every socket of this process, by one timer: a peer that does not answer is gone."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque

from api.background import Background
from api.websocket_protocol import FleetSocket

SLOTS = 20


class Keepalive:
    """A wheel: a socket belongs to the slot that was last visited when it came, so its slot is visited next
    one interval later, and its peers are pinged with one and the same frame."""

    def __init__(self, interval_s: float, timeout_s: float) -> None:
        self._tick_s = interval_s / SLOTS
        self._timeout_s = timeout_s
        self._slots: list[set[FleetSocket]] = [set() for _ in range(SLOTS)]
        self._slot_of: dict[FleetSocket, int] = {}
        self._last = 0
        self._asked: deque[tuple[float, int, bytes]] = deque()  # deadline, slot, payload
        self._background = Background()

    def add(self, socket: FleetSocket) -> None:
        self._slot_of[socket] = self._last
        self._slots[self._last].add(socket)

    def remove(self, socket: FleetSocket) -> None:
        slot = self._slot_of.pop(socket, None)
        if slot is not None:
            self._slots[slot].discard(socket)

    def start(self) -> None:
        self._background.start(self._run)

    async def stop(self) -> None:
        await self._background.stop()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._tick_s)
            for _ in range(2):  # after a stall: answers that have come are heard first
                await asyncio.sleep(0)
            self.tick(loop.time())

    def tick(self, now: float) -> None:
        """Aborts who is overdue, then pings the next slot. `now` in seconds, monotonic."""
        while self._asked and self._asked[0][0] <= now:
            _, slot, payload = self._asked.popleft()
            for socket in [s for s in self._slots[slot] if s.unanswered_ping == payload]:
                if socket.transport.is_reading():  # else it waits for us, and its answer with it
                    socket.abort()
        self._last = (self._last + 1) % SLOTS
        if self._slots[self._last]:
            self._ping(self._last, now)

    def _ping(self, slot: int, now: float) -> None:
        payload = secrets.token_bytes(4)  # not to be guessed by a peer that does not read
        frame = b"\x89\x04" + payload
        for socket in self._slots[slot]:
            if socket.unanswered_ping is None:  # else its deadline runs already
                socket.unanswered_ping = payload
                socket.write(frame)
        self._asked.append((now + self._timeout_s, slot, payload))
