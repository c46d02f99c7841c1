"""Errors on the way out: RFC 9457 for HTTP, codes for robot sockets. Never a 500 for input."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Unauthenticated
from fleet.errors import Busy, Conflict, FleetError, Forbidden, Misuse, NotFound, PeerFault, Unavailable

STATUS: dict[type[FleetError], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    PeerFault: 422,
    Misuse: 422,
    Busy: 503,
    Unavailable: 503,
}


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
    errors: list[ItemError] | UnsetType = UNSET


class BadRequest(FleetError):
    """A request that does not even parse; `status` is its HTTP status."""

    def __init__(
        self, status: int, detail: str, code: str = "bad_request", errors: list[ItemError] | None = None
    ) -> None:
        super().__init__(detail, code)
        self.status = status
        self.errors = errors


def problem(error: FleetError) -> Response:
    status = error.status if isinstance(error, BadRequest) else STATUS.get(type(error), 503)
    errors = error.errors if isinstance(error, BadRequest) else None
    body = Problem(
        title=type(error).__name__,
        status=status,
        detail=error.detail,
        code=error.code,
        errors=errors or UNSET,
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 503:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s or 1)))
    return Response(msgspec.json.encode(body), status, headers, "application/problem+json")


async def on_fleet_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FleetError)
    return problem(error)


async def on_http_error(request: Request, error: Any) -> Response:
    """Starlette's own refusals (no such route, wrong method) in the same form."""
    response = problem(BadRequest(error.status_code, str(error.detail), "http"))
    response.headers.update(error.headers or {})
    return response


async def on_disconnect(request: Request, error: Exception) -> Response:
    """The client left before its body was whole: nobody reads this."""
    return Response(status_code=400)
