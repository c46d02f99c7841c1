"""Our uvicorn protocol for HTTP, where every handshake begins too: it must get somewhere in time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.bodies import WHOLE
from api.connection_table import NO_TABLE, ConnectionTable
from api.envelope import new_request_id, sealed
from api.problems import BadRequest

MAX_HEAD_BYTES = 64 * 1024


class FleetHttp(HttpToolsProtocol):
    """A connection whose request line and headers are not complete within `headers_timeout_s` is closed;
    uvicorn itself arms no timer before its first answer. What is left of a body that was answered before
    its end (it was too large, or nobody asked for it) is thrown away for `linger_s`, then the connection is
    closed: closing at once would take the answer from a client that still sends, and reading on would let it
    send for ever. A client that takes no byte of its answer for `unread_s` is cut off."""

    table: ConnectionTable = NO_TABLE
    headers_timeout_s = 10.0
    unread_s = 10.0
    linger_s = 2.0

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._counted = False
        self._headers_due: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._body_due: asyncio.TimerHandle | None = None
        self._body_open = False
        self._read_due: asyncio.TimerHandle | None = None

    # -- what the event loop calls

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._counted = self.table.enter(self.client)
        if self._counted:
            self._expect_headers()
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        awaited = self._headers_due
        super().data_received(data)
        if awaited is not None and self._headers_due is awaited and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                detail = f"request line and headers are larger than {MAX_HEAD_BYTES} bytes"
                self._refuse(BadRequest(431, detail, "headers_too_large"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._counted:
            self.table.leave(self.client)
        self._end_waiting()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Only onto a connection on which nothing of an earlier request is left: its answer would come in the
        middle of the frames, and its timers would end the socket."""
        answered = self.cycle is None or self.cycle.response_complete
        if not answered or self.pipeline or self.transport.get_write_buffer_size():
            self.transport.abort()
            return
        self._end_waiting()
        self._unset_keepalive_if_required()
        super().handle_websocket_upgrade()
        self.parser = cast(Any, None)  # it and its callbacks hold each other

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._was_read()

    # -- what the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_came()
        self._body_open = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._body_open = False
        cast(dict[str, Any], self.scope)[WHOLE] = True
        super().on_message_complete()
        if self._body_due is not None:  # the next request may come on this connection, or never
            self._body_came()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    # -- what the request's task calls

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._body_open and not self.transport.is_closing():
            self._body_due = self.loop.call_later(self.linger_s, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """To what is not even HTTP, and so never comes to the application."""
        self._refuse(BadRequest(400, "this is no HTTP request that can be read", "http"))

    def _refuse(self, refusal: BadRequest) -> None:
        answer = sealed(refusal, new_request_id())
        answer.headers["Connection"] = "close"
        head = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
        self.transport.write(STATUS_LINE[refusal.status] + head + b"\r\n" + bytes(answer.body))
        self.transport.close()

    # -- timers

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():  # a close waits for what the client has not read
            self._expect_reading()

    def _expect_reading(self) -> None:
        if self._read_due is None:
            unsent = self.transport.get_write_buffer_size()
            self._read_due = self.loop.call_later(self.unread_s, self._look_at_reading, unsent)

    def _look_at_reading(self, unsent_before: int) -> None:
        self._read_due = None
        if self.transport.get_write_buffer_size() == unsent_before:
            self.transport.abort()
        else:
            self._expect_reading()

    def _was_read(self) -> None:
        if self._read_due is not None:
            self._read_due.cancel()
            self._read_due = None

    def _end_waiting(self) -> None:
        self._headers_came()
        self._body_came()
        self._was_read()

    def _expect_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(self.headers_timeout_s, self.transport.abort)

    def _headers_came(self) -> None:
        self._head_bytes = 0
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _body_came(self) -> None:
        if self._body_due is not None:
            self._body_due.cancel()
            self._body_due = None


def http_protocol(headers_timeout_s: float, table: ConnectionTable) -> type[FleetHttp]:
    """uvicorn takes a class and makes its instances itself."""
    return type("FleetHttp", (FleetHttp,), {"headers_timeout_s": headers_timeout_s, "table": table})
