"""The load client of the fan-out benchmark: a process full of watchers that count messages."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uvloop
from processes import RoundFailed, heard, raise_file_limit
from raw_websocket import RawSocket, masked

LAST_BYTES = b'Z"}'  # of every event, whose timestamp is its last field; in no header of a frame
SUBJECT = "jobs"
PATIENCE_S = 50.0
HANDSHAKES = 50  # at once: fewer than the shortest accept queue of the servers


class Connect(msgspec.Struct, frozen=True):
    """Until there are so many watchers."""

    port: int
    path: str
    watchers: int


class Expect(msgspec.Struct, frozen=True):
    """So many more messages at each watcher, no fewer and no more."""

    messages: int


class Tally:
    """What all watchers got; `complete` when that is what they should."""

    def __init__(self) -> None:
        self.messages = 0
        self.wanted = 0
        self.lost_sockets = 0
        self.complete = asyncio.Event()

    def expect(self, messages: int) -> None:
        self.messages, self.wanted = 0, messages
        self.complete.clear()
        self.add(0)

    def add(self, messages: int) -> None:
        self.messages += messages
        if self.messages >= self.wanted:
            self.complete.set()


class Watcher(RawSocket):
    def __init__(self, path: str, opened: asyncio.Future[None], tally: Tally) -> None:
        super().__init__(path, opened)
        self.messages = 0
        self._tally = tally
        self._rest = b""

    def heard(self, data: bytes) -> None:
        messages = self.count(self._rest + data)
        self.messages += messages
        self._tally.add(messages)

    def count(self, data: bytes) -> int:
        self._rest = data[1 - len(LAST_BYTES) :]
        return data.count(LAST_BYTES)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._tally.lost_sockets += 1


class DeflateWatcher(Watcher):
    """Offers permessage-deflate, as browsers do, and counts data frames: inflating them is not its job."""

    headers = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

    def on_upgraded(self, head: bytes) -> None:
        assert b"permessage-deflate" in head, "the server does not compress"
        super().on_upgraded(head)

    def count(self, data: bytes) -> int:
        messages = at = 0
        while (end := frame_end(data, at)) <= len(data):
            messages += data[at] & 0x0F == 1
            at = end
        self._rest = data[at:]
        return messages


def frame_end(data: bytes, at: int) -> int:
    """Where the frame at `at` ends; beyond the data if that is not known yet."""
    if len(data) < at + 4:
        short = len(data) == at + 3 and data[at + 1] < 2
        return at + 2 + data[at + 1] if short else at + 4
    if data[at + 1] == 126:
        return at + 4 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at + 2 + data[at + 1]


class NatsWatcher(Watcher):
    """Subscribes; the answer to its PING says that the server has seen it."""

    def on_upgraded(self, head: bytes) -> None:
        hello = b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB %b 1\r\nPING\r\n' % SUBJECT.encode()
        self.transport.write(masked(hello, opcode=2))

    def count(self, data: bytes) -> int:
        if not self._opened.done() and b"PONG\r\n" in data:
            self._opened.set_result(None)
        return super().count(data)


KINDS = {"plain": Watcher, "deflate": DeflateWatcher, "nats": NatsWatcher}


def watch(kind: str, pipe: Connection) -> None:
    """The process: obeys until the other side hangs up."""
    raise_file_limit()
    with suppress(EOFError, KeyboardInterrupt):
        uvloop.run(obey(KINDS[kind], pipe))


async def obey(kind: type[Watcher], pipe: Connection) -> None:
    tally, watchers = Tally(), list[Watcher]()
    while True:
        order: Any = await heard(pipe)
        if isinstance(order, Connect):
            await connect(kind, tally, watchers, order)
            pipe.send(None)
        else:
            before = [watcher.messages for watcher in watchers]
            tally.expect(order.messages * len(watchers))
            pipe.send(None)
            pipe.send(await judged(tally, watchers, [count + order.messages for count in before]))


async def connect(kind: type[Watcher], tally: Tally, watchers: list[Watcher], order: Connect) -> None:
    while missing := order.watchers - len(watchers):
        several = (kind.connect(order.port, order.path, tally) for _ in range(min(missing, HANDSHAKES)))
        watchers += await asyncio.gather(*several)


async def judged(tally: Tally, watchers: list[Watcher], wanted: list[int]) -> RoundFailed | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            await tally.complete.wait()
    if tally.lost_sockets:
        return RoundFailed(f"the server cut {tally.lost_sockets} of {len(watchers)} watchers")
    wrong = sum(watcher.messages != count for watcher, count in zip(watchers, wanted, strict=True))
    if wrong:
        detail = f"{tally.messages:,} of {tally.wanted:,} messages came"
        return RoundFailed(f"{detail}; {wrong} of {len(watchers)} watchers got too few or too many")
    return None
