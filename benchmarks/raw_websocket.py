"""Clients that cost next to nothing, so that a benchmark measures the server and not them."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

_HEARTBEAT = re.compile(
    rb'"robot_id":"bench-(\d+)","status":"(\w+)","cpu_percent":[^,]+,"memory_mb":([\d.]+)'
)


@contextmanager
def child(run: Callable[..., None], *args: Any) -> Iterator[Connection]:
    """`run(*args, pipe)` in a process of its own; its death ends whoever waits on this end of the pipe."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run, args=(*args, there))
    process.start()
    there.close()
    try:
        yield here
    finally:
        process.kill()
        process.join()


def masked_text(payload: bytes) -> bytes:
    """A client's text frame under a mask of zeros, which leaves the payload as it is."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


class RawSocket(asyncio.Protocol):
    """Shakes hands, then keeps what arrives: its bytes with their times (`keep`), or their number only."""

    def __init__(self, path: str, opened: asyncio.Future[None], keep: bool) -> None:
        self.received = 0
        self.chunks: list[bytes] = []
        self.times_s: list[float] = []
        self.transport: Any = None
        self._path = path
        self._opened = opened
        self._keep = keep
        self._head = b""

    @classmethod
    async def connect(cls, port: int, path: str, keep: bool = False) -> RawSocket:
        loop = asyncio.get_running_loop()
        peer = cls(path, loop.create_future(), keep)
        await loop.create_connection(lambda: peer, "127.0.0.1", port)
        await peer._opened
        return peer

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._opened.done():
            self.received += len(data)
            if self._keep:
                self.chunks.append(data)
                self.times_s.append(time.monotonic())
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end:
            assert head.startswith(b"HTTP/1.1 101"), head.split(b"\r\n")[0]
            self._opened.set_result(None)
            if rest:
                self.data_received(rest)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(error or ConnectionError("closed during the handshake"))

    def heartbeats(self) -> Iterator[tuple[int, int, float]]:
        """(robot, number of the beat, time of receipt) of each robot-status event; needs `keep`. The number
        travels in `memory_mb` as 1024 + n/1024, which JSON keeps exactly."""
        ends, total = [], 0
        for chunk in self.chunks:
            total += len(chunk)
            ends.append(total)
        for match in _HEARTBEAT.finditer(b"".join(self.chunks)):
            memory_mb = float(match[3])
            if memory_mb >= 1_024 and match[2] != b"offline":
                received_s = self.times_s[bisect_left(ends, match.end())]
                yield int(match[1]), round((memory_mb - 1_024) * 1_024), received_s
