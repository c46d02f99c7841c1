"""Request bodies: bounded, decoded and checked in one go; answers encoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from api import strict_json
from api.json_numbers import decode_json
from api.problems import BadRequest, ItemError

WHOLE = "fleetcast.body_whole"  # in the scope of a request whose body has come to its end: no timer for it
LIST_BYTES = 8 * 1024 * 1024  # a list of jobs
BEATS_BYTES = 2 * 1024 * 1024  # a list of heartbeats
REPORT_BYTES = 1024 * 1024  # a result
SMALL_BYTES = 64 * 1024  # what else a client says
TURN_BYTES = 16 * 1024
MAX_DETAIL = 250  # an error may name a key, and a key may have any length

Model = TypeVar("Model")


async def read_body(request: Request, max_bytes: int = SMALL_BYTES) -> bytes:
    """Raises BadRequest: 415 unless the body is plain JSON, 413 past `max_bytes`, before it is read where its
    length is told, 408 if its end does not come in time."""
    headers = dict(request.scope["headers"])
    if headers.get(b"content-type") != b"application/json" or b"content-encoding" in headers:
        _check_kind(request.headers)
    if int(headers.get(b"content-length", b"0")) > max_bytes:
        raise _too_large(max_bytes)
    if WHOLE in request.scope:
        return await _collect(request, max_bytes)
    timeout_s = request.app.state.door.settings.body_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            return await _collect(request, max_bytes)
    except TimeoutError:
        detail = f"the body did not come to its end within {timeout_s:g} s"
        raise BadRequest(408, detail, "body_timeout") from None


def _check_kind(headers: Headers) -> None:
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    if kind.strip() != "application/json":
        raise BadRequest(415, "send the body as application/json", "content_type")
    charset = parameters.partition("charset=")[2].strip(' "')
    if charset not in ("", "utf-8", "utf8"):
        raise BadRequest(415, "send the body in UTF-8", "content_type")
    if any(coding.strip().lower() != "identity" for coding in headers.getlist("content-encoding")):
        raise BadRequest(415, "compressed bodies are not accepted", "content_encoding")


async def _collect(request: Request, max_bytes: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> BadRequest:
    return BadRequest(413, f"the body is larger than {max_bytes} bytes", "too_large")


def decode(body: bytes, model: type[Model]) -> Model:
    """Raises BadRequest: 400 if it is not JSON, 422 if it does not fit or may be read in two ways."""
    try:
        strict_json.bound(body)
        decoded = decode_json(body, model)
        strict_json.check(body)
        return decoded
    except msgspec.ValidationError as error:
        raise BadRequest(422, str(error)[:MAX_DETAIL], "invalid") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise strict_json.not_json(body, error) from None


async def decode_items(items: list[bytes], model: type[Model]) -> list[Model]:
    """Raises BadRequest 422 whose `errors` name each bad item."""
    found: list[Model] = []
    errors: list[ItemError] = []
    index = 0
    async for item in in_turns(items):
        try:
            found.append(decode(item, model))
        except BadRequest as error:
            errors.append(named(index, error))
        index += 1
    if errors:
        raise BadRequest(422, f"{len(errors)} of {len(items)} items are invalid", "invalid", errors)
    return found


def named(index: int, error: BadRequest) -> ItemError:
    """An item of a problem's `errors`."""
    return ItemError(index, error.code, error.detail)


async def in_turns(items: list[bytes]) -> AsyncIterator[bytes]:
    """Between the items of a list of megabytes, others get their turn."""
    spent = 0
    for item in items:
        yield item
        spent += len(item)
        if spent > TURN_BYTES:
            spent = 0
            await asyncio.sleep(0)


def answer(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
