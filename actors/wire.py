"""A room's own entrance on its node: a Unix socket beside Ray's calls.

A call by Ray costs both sides some 2 ms of a core; one through here a tenth. Ray stays what finds actors,
starts them again and reaches them from other nodes: where there is no such socket, or none that can be
reached, calls go its way. The socket's name is Linux's abstract kind, which leaves nothing behind, and both
sides make sure that the other is the same user, who may do as it likes with this process anyway: what comes
is unpickled.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import pickle
import secrets
import socket
import struct
from collections.abc import Coroutine
from typing import Any

from actors.failpoints import Loss
from fleet.errors import FleetError, Overloaded, Unavailable

log = logging.getLogger("fleetcast.wire")

MAX_CALLS = 256  # under way on one connection, then Overloaded
MAX_BYTES = 1024 * 1024 * 1024  # of one message, which is held in memory as a whole
SENT_S = 0.01  # a call that a test has thought lost has left by then
_SIZE = struct.Struct("=I")
_PEER = struct.Struct("=3i")  # pid, uid, gid


def _dumps(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"a message of {size} bytes")


class Lost(Exception):
    """The connection ended; what became of the calls under way is not known."""


class _Frames(asyncio.Protocol):
    """Messages with their size before them."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._unread = bytearray()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, message: bytes) -> None:
        _check_size(len(message))
        self.transport.write(_SIZE.pack(len(message)) + message)

    def data_received(self, data: bytes) -> None:
        unread = self._unread
        unread += data
        start = 0
        while len(unread) - start >= _SIZE.size:
            (size,) = _SIZE.unpack_from(unread, start)
            _check_size(size)  # ends the connection
            end = start + _SIZE.size + size
            if len(unread) < end:
                break
            self.hear(pickle.loads(memoryview(unread)[start + _SIZE.size : end]))
            start = end
        if start:
            del unread[:start]

    def hear(self, message: Any) -> None:
        raise NotImplementedError


# -- the room's side


class _Caller(_Frames):
    """One connection to a room. Calls go on when it ends: who made them may ask again, elsewhere."""

    def __init__(self, room: Any) -> None:
        super().__init__()
        self._room = room
        self._known = False
        self._calls: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._known = _same_user(transport.get_extra_info("socket"))
        if not self._known:
            log.warning("another user tried to call this room")
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._known:  # else nothing of it may be unpickled, whatever still comes
            super().data_received(data)

    def pause_writing(self) -> None:
        """It does not read what it is answered: until it does, it is not heard."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def hear(self, message: Any) -> None:
        number, method, args = message
        if len(self._calls) >= MAX_CALLS:
            self._answer(number, False, Overloaded("too many calls wait for the fleet", "", 1.0))
            return
        call = asyncio.get_running_loop().create_task(self._serve(number, method, args))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _serve(self, number: int, method: str, args: tuple[Any, ...]) -> None:
        try:
            self._answer(number, True, await getattr(self._room, method)(*args))
        except FleetError as error:
            self._answer(number, False, error)
        except Exception:
            log.exception("%s failed", method)
            self._answer(number, False, Unavailable("the fleet failed on this request", "failed", 1.0))

    def _answer(self, number: int, good: bool, value: Any) -> None:
        message = _dumps((number, good, value))
        if not self.transport.is_closing():
            self.send(message)


class Reachable:
    """A room that can be called by `Wire` from processes of the same user on its node."""

    _entrance: asyncio.Server | None = None
    _address = ""

    async def address(self) -> str:
        """Where; "" if the system has no such sockets."""
        if not self._address and hasattr(socket, "SO_PEERCRED"):
            self._address = f"\0fleetcast-{secrets.token_hex(16)}"
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(self._address)
            sock.listen()  # at once: who asks next may connect before anybody accepts
            loop = asyncio.get_running_loop()
            self._entrance = await loop.create_unix_server(lambda: _Caller(self), sock=sock)
        return self._address

    async def close_entrance(self) -> None:
        """For a room that is no actor."""
        if self._entrance is not None:
            self._entrance.close()
            await self._entrance.wait_closed()


# -- the caller's side


class Wire(_Frames):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Future[Any]] = {}

    async def call(self, method: str, args: tuple[Any, ...], loss: Loss | None = None) -> Any:
        """Raises Lost, Overloaded if it is too large, or what the room raised. `loss`: a test's."""
        if self.closed or loss == "request":
            raise Lost
        if loss is not None:
            await self._lose(loss, self.call(method, args))
        number = next(self._numbers)
        message = _dumps((number, method, args))
        if len(message) > MAX_BYTES:
            raise Overloaded("this is too much for one call to the fleet", "", 1.0)
        answer = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            self.send(message)
            return await answer
        finally:
            del self._calls[number]

    @staticmethod
    async def _lose(loss: Loss, call: Coroutine[Any, Any, Any]) -> None:
        if loss == "response":
            await call
        else:
            going = asyncio.ensure_future(call)
            going.add_done_callback(lambda _: going.cancelled() or going.exception())
            await asyncio.sleep(SENT_S)
        raise Lost

    def hear(self, message: Any) -> None:
        number, good, value = message
        answer = self._calls.get(number)
        if answer is None or answer.done():
            return  # its caller has left
        if good:
            answer.set_result(value)
        else:
            answer.set_exception(value)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(Lost())

    def close(self) -> None:
        self.transport.abort()


async def connect(address: str) -> Wire | None:
    """None if nobody is there: on another node, or no longer."""
    if not address:
        return None
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        sock.connect(address)
        if not _same_user(sock):
            raise PermissionError
        _, wire = await asyncio.get_running_loop().create_unix_connection(Wire, sock=sock)
    except OSError:
        sock.close()
        return None
    return wire


def _same_user(sock: Any) -> bool:
    _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return bool(uid == os.getuid())
