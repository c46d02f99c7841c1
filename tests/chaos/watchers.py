"""Watchers of the numbered streams (`?v=2`): what they hear, and whether a hole was ever kept from them."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from fleet.wall_time import wall_ns_of

PAUSE_S = 0.2
CUT_EVERY_S = 15.0


class _Message(msgspec.Struct):
    type: str
    epoch: str | None
    offset: int | None
    data: Any


_decode = msgspec.json.Decoder(_Message).decode


class Heard(msgspec.Struct):
    """An event, or out of a snapshot the latest of a robot or job, whose time may be an older one."""

    data: dict[str, Any]
    at_wall_ns: int
    snapshot: bool


class Stream:
    """The messages of one stream, over as many sockets as it takes. An event bears the number after that of
    the one before. Where it cannot, a gap was announced, and a snapshot with a place came first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Heard] = []
        self.holes: list[str] = []
        self.gaps: list[str] = []  # why
        self.resumed = 0
        self.sockets = 0
        self.since = ""
        self._offset: int | None = None  # None: a snapshot must come before any event
        self._gap_due = False

    def begin(self) -> str:
        """A new socket: the place to ask for, "" at first."""
        self.sockets += 1
        return self.since

    def hear(self, frame: str | bytes) -> None:
        message = _decode(frame)
        match message.type:
            case "hello":
                self._on_hello(message)
            case "gap":
                self.gaps.append(message.data["reason"])
                self._offset, self._gap_due = None, False
            case "snapshot":
                for item in message.data["items"]:
                    self._keep(item, snapshot=True)
                if message.offset is not None:
                    self._offset = message.offset
            case "error":
                self._hole(f"{self.since} was refused: {message.data}")
            case _:
                self._on_event(message)
        if message.epoch is not None and message.offset is not None:
            self.since = f"{message.epoch}:{message.offset}"

    def _on_hello(self, message: _Message) -> None:
        if not self.since:
            self._offset = message.offset
        elif not message.data["recovered"]:
            self._offset, self._gap_due = None, True
        else:
            self.resumed += 1
            if message.offset is None or not self.since.endswith(f":{message.offset}"):
                self._hole(f"recovered at {message.offset} where {self.since} was asked for")
            self._offset = message.offset

    def _on_event(self, message: _Message) -> None:
        if self._gap_due:
            self._hole("not recovered, and no gap was announced")
        elif self._offset is None:
            self._hole(f"event {message.offset} after a gap, and no snapshot before it")
        elif message.offset != self._offset + 1:
            self._hole(f"event {message.offset} after {self._offset}, and no gap was announced")
        self._offset, self._gap_due = message.offset, False
        self._keep(message.data)

    def _hole(self, what: str) -> None:
        self.holes.append(f"{self.name}: {what}")

    def _keep(self, data: dict[str, Any], snapshot: bool = False) -> None:
        self.events.append(Heard(data, wall_ns_of(data["timestamp"]), snapshot))


class Watcher:
    """Follows a stream for ever; its socket is cut now and then, and it comes back to where it was."""

    def __init__(self, url: str, token: str, name: str, seed: int) -> None:
        self.stream = Stream(name)
        self._url = f"{url.replace('http', 'ws', 1)}/api/v1/ws/{name}?v=2&token={token}"
        self._rng = Random(f"{seed} {name}")

    async def run(self) -> None:
        while True:
            since = self.stream.begin()
            url = f"{self._url}&since={since}" if since else self._url
            try:
                async with connect(url, compression=None, max_size=None, open_timeout=20) as socket:
                    await self._listen(socket)
            except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
                await asyncio.sleep(PAUSE_S)

    async def _listen(self, socket: ClientConnection) -> None:
        try:
            async with asyncio.timeout(self._rng.expovariate(1 / CUT_EVERY_S)):
                async for frame in socket:
                    self.stream.hear(frame)
        except TimeoutError:
            socket.transport.abort()  # no goodbye
