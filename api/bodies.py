"""Request bodies: bounded, decoded and checked in one go; answers encoded."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.json_numbers import decode_json
from api.problems import BadRequest

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64

Model = TypeVar("Model")


async def read_body(request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Raises BadRequest 415 unless the body is plain JSON, 413 past `max_bytes`, before it is held."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest(415, "send the body as application/json", "content_type")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise BadRequest(415, "compressed bodies are not accepted", "content_encoding")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise BadRequest(413, f"the body is larger than {max_bytes} bytes", "too_large")
        chunks.append(chunk)
    return b"".join(chunks)


def decode(body: bytes, model: type[Model]) -> Model:
    """Raises BadRequest: 400 if it is not JSON, 422 if it does not fit."""
    try:
        return decode_json(body, model)
    except msgspec.ValidationError as error:
        raise BadRequest(422, str(error), "invalid") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(400, f"the body is not JSON: {error}", "not_json") from None


def deeper_than(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` deep. What travels between processes is copied
    by recursion, which has its limits."""
    level = [value]
    for _ in range(depth):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _within(outer)]
    return any(isinstance(outer, dict | list) for outer in level)


def _within(outer: dict[str, Any] | list[Any]) -> list[Any]:
    return list(outer.values()) if isinstance(outer, dict) else outer


def check_depth(name: str, value: Any) -> None:
    """Raises BadRequest 422 for what is nested too deep."""
    if deeper_than(value, MAX_DEPTH):
        raise BadRequest(422, f"{name} is nested more than {MAX_DEPTH} deep", "too_deep")


def answer(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def whole_number(text: str | None, name: str, default: int, low: int, high: int) -> int:
    """A query parameter. Raises BadRequest 422 that names it."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19 and low <= int(text) <= high):
        raise BadRequest(422, f"{name} must be a whole number from {low} to {high}", "bad_parameter")
    return int(text)
