"""Our uvicorn protocol: what a socket needs that the stock class does not do.

Frames are written as they are (server frames are not masked, so one frame serves every socket), straight to
the kernel while nothing waits before them. The ASGI application ends with the handshake: from then on a
listener hears the socket, and no task, queue or timer is kept for it. A peer that does not read is aborted,
since a close would wait for it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from api.connection_table import NO_TABLE, ConnectionTable

EXTENSION = "fleetcast.socket"
WATCH_MAX_BYTES = 64 * 1024
ROBOT_MAX_BYTES = 256 * 1024
GATEWAY_MAX_BYTES = 1024 * 1024
SEND_BUFFER_BYTES = 64 * 1024
MAX_REQUEST_LINE = 8 * 1024
MAX_FRAGMENTS = 1024
MAX_REASON_BYTES = 123  # RFC 6455 5.5
SLICE_BYTES = 2 * 1024
AFTER_CLOSE_BYTES = 1024
CLOSE_TIMEOUT_S = 3.0
_TOO_LONG = b"HTTP/1.1 414 URI Too Long\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Listener(Protocol):
    """Hears a socket synchronously: no task, queue or wake-up per message."""

    def on_text(self, data: bytes) -> None: ...

    def on_binary(self, data: bytes) -> None: ...

    def on_control(self) -> None:
        """A ping, or a pong that nobody waits for."""

    def on_writable(self) -> None: ...

    def on_end(self) -> None:
        """Once: a close was sent or received, or the connection is gone."""


class _Nobody:
    """Stands where the application's task waited, once there is none."""

    def put_nowait(self, message: Any) -> None: ...

    def set(self) -> None: ...

    def clear(self) -> None: ...


_write = os.write
NOBODY: Any = _Nobody()


class _Brain(ServerProtocol):
    answers_pings = True

    def recv_frame(self, frame: Frame) -> None:
        """A close may come between the fragments of a message (RFC 6455 5.4): `websockets` calls it an
        error. A peer that pings and does not read would fill the memory with answers."""
        if frame.opcode is Opcode.PING and not self.answers_pings:
            self.events.append(frame)
            return
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


def _max_bytes(path: str) -> int:
    if path.endswith("/ws/robot-gateway"):
        return GATEWAY_MAX_BYTES
    return ROBOT_MAX_BYTES if "/ws/robot/" in path else WATCH_MAX_BYTES


class FleetSocket(WebSocketsSansIOProtocol):
    table: ConnectionTable = NO_TABLE
    conn: _Brain

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn.parser.close()  # else what we replace waits for the garbage collector
        self.conn = _Brain(max_size=self.config.ws_max_size, logger=self.conn.logger)
        self.listener: Listener | None = None
        self.on_gone: Callable[[FleetSocket], None] | None = None
        self.blocked = False
        self.unanswered_ping: bytes | None = None
        self.close_timeout = CLOSE_TIMEOUT_S
        self._fd = -1
        self._heard_after_close = 0

    # -- what the hub and the robot sessions call

    def write(self, frames: bytes) -> bool:
        """Ready frames, as they are. False if the kernel did not take them whole: the rest waits in the
        transport and `blocked` is set. To a socket that closes they are not sent, and nothing waits. Cheaper
        than the transport's own write, which queues first."""
        taken = 0
        if self._fd >= 0 and not self.blocked:
            try:
                taken = _write(self._fd, frames)
            except OSError:  # full, or broken: the transport will find out which
                taken = 0
            if taken == len(frames):
                return True
        return self._write_rest(memoryview(frames)[taken:])

    def _write_rest(self, frames: memoryview) -> bool:
        if self.close_sent or self.transport.is_closing():
            return True
        self.transport.write(frames)
        return not self.blocked

    def unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        self.transport.abort()

    def close_with(self, code: int, reason: str) -> None:
        if self.close_sent or not self.handshake_complete or self.transport.is_closing():
            return
        try:
            self.conn.send_close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))
        except InvalidState:
            return
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._ended()
        # A peer that reads nothing never answers: its unsent bytes must not keep the socket.
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    # -- what uvicorn and the event loop call

    async def run_asgi(self) -> None:
        """The application admits the socket and sets its listener, or closes it."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            self.logger.exception("a WebSocket could not be admitted")
            self._fail()
        self._let_go()
        if self.listener is None and self.close_timer is None:
            self.transport.close()

    def _fail(self) -> None:
        if self.handshake_complete:
            self.close_with(1011, "internal error")
        else:
            self.send_500_response()

    def _let_go(self) -> None:
        """Of all that only the handshake needed: half of the memory of an idle socket."""
        self.queue = self.writable = NOBODY
        self.request = self.response = self.scope = self.app_state = cast(Any, None)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _ended(self) -> None:
        self._fd = -1  # once the connection is lost, its number may be another's
        listener, self.listener = self.listener, None
        on_gone, self.on_gone = self.on_gone, None
        if on_gone is not None:
            on_gone(self)  # first: it is counted out whatever its listener makes of the end
        if listener is not None:
            listener.on_end()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that `blocked` means: something waits
        self.blocked = transport.get_write_buffer_size() > 0
        sock = transport.get_extra_info("socket")
        if sock is not None and transport.get_extra_info("sslcontext") is None:
            self._fd = sock.fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.conn.parser.close()  # it and its generator hold each other
        self.table.leave(self.client)
        self._ended()

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated and data.find(b"\r\n") > MAX_REQUEST_LINE:
            self.handshake_complete = True
            self.transport.write(_TOO_LONG)
            self.transport.close()
            return
        if self.handshake_initiated:
            self._hear(data)
        else:
            super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            self._refuse_handshake()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            # A close waits for what the peer has not read, which may be for ever.
            self.loop.call_later(self.close_timeout, self.transport.abort)

    def _hear(self, data: bytes) -> None:
        """In slices, since a quarter of a mebibyte may come at once and hold 40,000 frames, of which the
        first may end the socket. What follows a peer's close frame is ignored (RFC 6455 5.5.1); what follows
        ours is read only as far as its answer may be."""
        for start in range(0, len(data), SLICE_BYTES):
            piece = data[start : start + SLICE_BYTES]
            if self.close_sent:
                piece = piece[: AFTER_CLOSE_BYTES - self._heard_after_close]
                self._heard_after_close += len(piece)
                self.conn.answers_pings = False
            if self.conn.close_rcvd is not None:
                return
            if not piece:
                self.transport.pause_reading()  # the timer of our close ends it
                return
            super().data_received(piece)

    def _refuse_handshake(self) -> None:
        """A handshake that did not parse was answered by the brain; the stock class never sends it."""
        self.handshake_complete = self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()

    def handle_connect(self, event: Request) -> None:
        most = self.conn.max_message_size = _max_bytes(event.path.partition("?")[0])
        super().handle_connect(event)
        if not hasattr(self, "scope"):
            return
        cast(dict[str, Any], self.scope)["extensions"][EXTENSION] = self
        self.read_paused = True  # nothing is heard before it is admitted
        self.transport.pause_reading()
        if most == WATCH_MAX_BYTES:
            self._bound_buffers()

    def _bound_buffers(self) -> None:
        """Without this the kernel hides megabytes that a slow watcher has not read."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def pause_writing(self) -> None:
        self.blocked = True
        self.conn.answers_pings = False
        super().pause_writing()

    def resume_writing(self) -> None:
        self.blocked = False
        self.conn.answers_pings = True
        super().resume_writing()
        if self.listener is not None:
            self.listener.on_writable()

    def send_receive_event_to_app(self) -> None:
        if self.listener is None and self.queue is not NOBODY:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.listener is None or self.close_sent:
            return
        if self.curr_msg_data_type != "text":
            self.listener.on_binary(bytes(data))
        elif _is_utf8(data):
            self.listener.on_text(bytes(data))
        else:
            self.close_with(1007, "text must be UTF-8")

    def start_keepalive(self) -> None:
        """Not here: one wheel pings all sockets."""

    def handle_ping(self) -> None:
        output = b"".join(self.conn.data_to_send())  # of all pings that came together
        if output:
            self.write(output)
        self._control()

    def handle_pong(self, event: Frame) -> None:
        if bytes(event.data) == self.unanswered_ping:
            self.unanswered_ping = None
        else:
            self._control()

    def _control(self) -> None:
        if self.listener is not None:
            self.listener.on_control()

    def handle_cont(self, event: Frame) -> None:
        """Empty fragments count no bytes, so they are counted themselves."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self.close_with(1009, f"a message has at most {MAX_FRAGMENTS} fragments")

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._ended()

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._ended()
        if self.close_sent and not self.transport.is_closing():
            self.transport.close()

    def shutdown(self) -> None:
        if self.handshake_complete and not self.close_sent:
            self.close_with(1001, "server shutdown")
        elif not self.close_sent:
            super().shutdown()


def socket_protocol(table: ConnectionTable) -> type[FleetSocket]:
    """uvicorn takes a class and makes its instances itself."""
    return type("FleetSocket", (FleetSocket,), {"table": table})


def _is_utf8(data: bytes) -> bool:
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def text_frame(payload: bytes) -> bytes:
    """One unmasked, unfragmented text frame (RFC 6455 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def payload_of(frame: bytes) -> bytes:
    """Of a text frame of ours."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]
