"""Our uvicorn protocol for HTTP, where every handshake begins too: it must get somewhere in time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class FleetHttp(HttpToolsProtocol):
    """A connection whose request line and headers are not complete within `headers_timeout_s` is closed;
    uvicorn itself arms no timer before its first answer."""

    headers_timeout_s = 10.0

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_came()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(self.headers_timeout_s, self.transport.abort)

    def _headers_came(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


def http_protocol(headers_timeout_s: float) -> type[FleetHttp]:
    """uvicorn takes a class and makes its instances itself."""
    return type("FleetHttp", (FleetHttp,), {"headers_timeout_s": headers_timeout_s})
