"""Calls in both directions over one stream, for a room in another process without Ray."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import struct
from collections.abc import Awaitable, Callable
from typing import Any

_HEAD = struct.Struct("<I")


class Gone(Exception):
    """The other end died; whether it did what it was asked to is not known."""


class Peer:
    """`serve(method, args)` answers what the other end asks."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        serve: Callable[[str, tuple[Any, ...]], Awaitable[Any]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._serve = serve
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._gone = False
        self.answers = 0  # that came in

    async def ask(self, method: str, *args: Any) -> Any:
        if self._gone:
            raise Gone
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(("ask", number, method, args))
        return await self._waiting[number]

    async def listen(self) -> None:
        """Until the other end is gone."""
        try:
            while True:
                (size,) = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                self._hear(*pickle.loads(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._gone = True
            self._writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(Gone())
                    waiting.exception()  # marks it as seen

    def _hear(self, kind: str, number: int, *rest: Any) -> None:
        if kind == "ask":
            task = asyncio.get_running_loop().create_task(self._answer(number, *rest))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        self.answers += 1
        waiting = self._waiting.pop(number)
        if waiting.done():
            return
        if kind == "error":
            waiting.set_exception(rest[0])
        else:
            waiting.set_result(rest[0])

    async def _answer(self, number: int, method: str, args: tuple[Any, ...]) -> None:
        try:
            self._send(("value", number, await self._serve(method, args)))
        except Exception as error:
            self._send(("error", number, error))

    def _send(self, message: tuple[Any, ...]) -> None:
        data = pickle.dumps(message)
        self._writer.write(_HEAD.pack(len(data)) + data)
