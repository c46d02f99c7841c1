"""WebSocket clients that cost next to nothing, so that a benchmark measures the server and not them."""

from __future__ import annotations

import asyncio
import re
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Self

_HEARTBEAT = re.compile(
    rb'"robot_id":"bench-(\d+)","status":"(\w+)","cpu_percent":[^,]+,"memory_mb":([\d.]+)'
)


PING = b"\x89\x04"  # with four bytes after it; never part of a text


def masked(payload: bytes, opcode: int = 1) -> bytes:
    """A client's frame (1: text, 2: binary) under a mask of zeros, which leaves the payload as it is."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((0x80 | opcode,)) + length + bytes(4) + payload


class RawSocket(asyncio.Protocol):
    """Shakes hands, then leaves what arrives to `heard`: here its number of bytes."""

    headers = ""

    def __init__(self, path: str, opened: asyncio.Future[None]) -> None:
        self.received = 0
        self.transport: Any = None
        self._path = path
        self._opened = opened
        self._upgraded = False
        self._head = b""

    @classmethod
    async def connect(cls, port: int, path: str, *args: Any) -> Self:
        loop = asyncio.get_running_loop()
        peer = cls(path, loop.create_future(), *args)
        await loop.create_connection(lambda: peer, "127.0.0.1", port)
        await peer._opened
        return peer

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
            f"{self.headers}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            self.heard(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end:
            assert head.startswith(b"HTTP/1.1 101"), head.split(b"\r\n")[0]
            self._upgraded = True
            self.on_upgraded(head)
            if rest:
                self.heard(rest)

    def on_upgraded(self, head: bytes) -> None:
        self._opened.set_result(None)

    def heard(self, data: bytes) -> None:
        self.received += len(data)

    def answer_ping(self, data: bytes) -> None:
        """To a ping within `data`, if there is one; for those who stay longer than a server waits."""
        at = data.find(PING)
        if at >= 0:
            self.transport.write(masked(data[at + 2 : at + 6], opcode=10))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(error or ConnectionError("closed during the handshake"))


class TextSocket(RawSocket):
    """Hears whole text messages; what it says meanwhile is one write."""

    def __init__(self, path: str, opened: asyncio.Future[None]) -> None:
        super().__init__(path, opened)
        self._rest = b""
        self._said: list[bytes] = []

    def on_text(self, data: bytes) -> None:
        raise NotImplementedError

    def say(self, message: bytes) -> None:
        """Goes out with the next `flush`."""
        self._said.append(masked(message))

    def flush(self) -> None:
        if self._said:
            self.transport.write(b"".join(self._said))
            self._said.clear()

    def heard(self, data: bytes) -> None:
        data, at = self._rest + data, 0
        while frame := _frame_at(data, at):
            opcode, start, at = frame
            if opcode == 1:
                self.on_text(data[start:at])
            elif opcode == 9:
                self._said.append(masked(data[start:at], opcode=10))
        self._rest = data[at:]
        self.flush()


def _frame_at(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Opcode, beginning and end of the payload of a server's frame; None if it is not all there."""
    if len(data) < at + 2:
        return None
    size, start = data[at + 1], at + 2
    if size >= 126:
        start += 2 if size == 126 else 8
        size = int.from_bytes(data[at + 2 : start], "big")
    return (data[at] & 0xF, start, start + size) if len(data) >= start + size else None


class KeepingSocket(RawSocket):
    """Keeps what arrives, with the times."""

    def __init__(self, path: str, opened: asyncio.Future[None]) -> None:
        super().__init__(path, opened)
        self.chunks: list[bytes] = []
        self.times_s: list[float] = []

    def heard(self, data: bytes) -> None:
        self.chunks.append(data)
        self.times_s.append(time.monotonic())

    def heartbeats(self) -> Iterator[tuple[int, int, float]]:
        """(robot, number of the beat, time of receipt) of each robot-status event. The number travels in
        `memory_mb` as 1024 + n/1024, which JSON keeps exactly."""
        ends, total = [], 0
        for chunk in self.chunks:
            total += len(chunk)
            ends.append(total)
        for match in _HEARTBEAT.finditer(b"".join(self.chunks)):
            memory_mb = float(match[3])
            if memory_mb >= 1_024 and match[2] != b"offline":
                received_s = self.times_s[bisect_left(ends, match.end())]
                yield int(match[1]), round((memory_mb - 1_024) * 1_024), received_s
