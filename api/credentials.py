"""Sockets, and requests that wait, live as long as what they came with: a token that runs out or a key that
is revoked or replaced ends them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Protocol

import msgspec

from api.auth import Principal
from api.background import Background

PERIOD_S = 0.25


class Lives(Protocol):
    """Itself a key of dictionaries."""

    def close_with(self, code: int, reason: str) -> None: ...


class WaitingRequest:
    """`ended` gets the reason."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def close_with(self, code: int, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


class LiveCredentials:
    """One timer for all, within a quarter of a second; a revocation closes at once."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Lives]] = []
        self._tie = itertools.count()
        self._live: dict[Lives, Principal] = {}
        self._by_key: dict[str, set[Lives]] = {}
        self._background = Background()

    def watch(self, socket: Lives, principal: Principal) -> None:
        self._live[socket] = principal
        if principal.key_id:
            self._by_key.setdefault(principal.key_id, set()).add(socket)
        if principal.expires_at is not None:
            heapq.heappush(self._heap, (principal.expires_at, next(self._tie), socket))

    def forget(self, socket: Lives) -> None:
        """Entries of closed sockets leave the heap in bulk, once they are most of it."""
        principal = self._live.pop(socket, None)
        if principal is not None and principal.key_id:
            sockets = self._by_key[principal.key_id]
            sockets.discard(socket)
            if not sockets:
                del self._by_key[principal.key_id]
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._live):
            self._heap = [entry for entry in self._heap if self._stands(entry)]
            heapq.heapify(self._heap)

    def _stands(self, entry: tuple[float, int, Lives]) -> bool:
        """Whether its socket is open and ends at that time still."""
        principal = self._live.get(entry[2])
        return principal is not None and principal.expires_at == entry[0]

    def revoke(self, key_id: str) -> None:
        for socket in tuple(self._by_key.get(key_id, ())):
            socket.close_with(4001, "key revoked")

    def shorten(self, key_id: str, expires_at: float) -> None:
        """The key has been replaced, and ends when the grace does (in seconds since 1970)."""
        for socket in tuple(self._by_key.get(key_id, ())):
            self._live[socket] = msgspec.structs.replace(self._live[socket], expires_at=expires_at)
            heapq.heappush(self._heap, (expires_at, next(self._tie), socket))

    def start(self) -> None:
        self._background.start(self._run)

    async def stop(self) -> None:
        await self._background.stop()

    async def _run(self) -> None:
        while True:
            now_s = time.time()
            while self._heap and self._heap[0][0] <= now_s:
                entry = heapq.heappop(self._heap)
                if self._stands(entry):
                    entry[2].close_with(4001, "token expired")
            await asyncio.sleep(PERIOD_S)
