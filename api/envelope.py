"""What goes around every HTTP answer: a request id, headers that keep browsers careful, and an answer
where a handler failed. Plain ASGI; sockets pass by."""

from __future__ import annotations

import logging
import re
import secrets

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import REQUEST_ID, BadRequest, on_unexpected, problem
from fleet.errors import FleetError

log = logging.getLogger("fleetcast.http")

MAX_TARGET_BYTES = 8 * 1024
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
# Of an answer that is no page; a page brings its own Content-Security-Policy.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


_RAW = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
RawHeaders = list[tuple[bytes, bytes]]


def _careful(given: RawHeaders) -> RawHeaders:
    """With what the answer does not say itself; as ASGI has it, names are lower case."""
    names = {name for name, _ in given}
    return given + [header for header in _RAW if header[0] not in names]


def request_id_of(headers: RawHeaders) -> str:
    """The caller's own if it is harmless in a log line, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return new_request_id()


def new_request_id() -> str:
    return secrets.token_hex(8)


def sealed(error: FleetError, request_id: str) -> Response:
    """A problem that does not pass the envelope: of what is no request of the application."""
    answer = problem(error, request_id)
    answer.headers.update(SECURITY_HEADERS | {"X-Request-Id": request_id})
    return answer


class Envelope:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = request_id_of(scope["headers"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*_careful(message["headers"]), (b"x-request-id", request_id.encode())]
            await send(message)

        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
            await problem(_too_long(), request_id)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)


def _too_long() -> BadRequest:
    return BadRequest(414, f"path and query are longer than {MAX_TARGET_BYTES} bytes", "uri_too_long")


class LastResort:
    """An exception that nobody expected is answered with 500 and the request's id; what it was stands in
    the log only. Once the answer has begun there is nothing left but to end the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            log.exception("request %s failed: %s %s", scope[REQUEST_ID], scope["method"], scope["path"])
            if begun:
                raise
            await on_unexpected(Request(scope))(scope, receive, send)
