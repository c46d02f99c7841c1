"""Errors on the way out: RFC 9457 for HTTP, codes for robot sockets. Never a 500 for input."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Unauthenticated
from fleet.errors import (
    Busy,
    Conflict,
    FleetError,
    Forbidden,
    Full,
    Misuse,
    NotFound,
    Overloaded,
    PeerFault,
    Unavailable,
)

REQUEST_ID = "fleetcast.request_id"  # in the scope of a request


class ItemError(msgspec.Struct, frozen=True):
    """What is wrong with one item of a list."""

    index: int
    code: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error as RFC 9457 has it. `code` is for programs, `detail` for people; `errors` names each bad
    item of a list."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str | UnsetType = UNSET
    errors: list[ItemError] | UnsetType = UNSET


class BadRequest(FleetError):
    """A request that does not even parse; `status` is its HTTP status."""

    def __init__(
        self, status: int, detail: str, code: str = "bad_request", errors: list[ItemError] | None = None
    ) -> None:
        super().__init__(detail, code)
        self.status = status
        self.errors = errors


class TooMany(FleetError):
    """A caller asks too often or holds too much; `retry_after_s` says for how long."""

    default_code = "too_many"


STATUS: dict[type[FleetError], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    PeerFault: 422,
    Misuse: 422,
    TooMany: 429,
    Busy: 503,
    Overloaded: 503,
    Full: 429,
    Unavailable: 503,
}


def status_of(error: FleetError) -> int:
    return error.status if isinstance(error, BadRequest) else STATUS.get(type(error), 503)


def problem(error: FleetError, request_id: str = "") -> Response:
    status = status_of(error)
    errors = error.errors if isinstance(error, BadRequest) else None
    body = Problem(
        title=type(error).__name__,
        status=status,
        detail=error.detail,
        code=error.code,
        request_id=request_id or UNSET,
        errors=errors or UNSET,
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or 1)))
    return Response(msgspec.json.encode(body), status, headers, "application/problem+json")


async def on_fleet_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FleetError)
    return problem(error, request.scope[REQUEST_ID])


async def on_http_error(request: Request, error: Any) -> Response:
    """Starlette's own refusals (no such route, wrong method) in the same form."""
    refused = problem(BadRequest(error.status_code, str(error.detail), "http"), request.scope[REQUEST_ID])
    refused.headers.update(error.headers or {})
    return refused


def on_unexpected(request: Request) -> Response:
    detail = "the server failed, and its log says why under this request_id"
    return problem(BadRequest(500, detail, "internal"), request.scope[REQUEST_ID])


async def on_disconnect(request: Request, error: Exception) -> Response:
    """The client left before its body was whole: nobody reads this."""
    return Response(status_code=400)
