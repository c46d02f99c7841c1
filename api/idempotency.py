"""`Idempotency-Key`: the name that a client gives a request, so as to send it again without harm."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Principal
from api.problems import BadRequest

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
_KEY = re.compile(r"[!-~]{1,255}")
Key = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+\Z",
        description="Of the client's making, for this request alone. Sent again while keys are kept (24 h), "
        "the request gets its first answer and is not done twice.",
    ),
]


class IdempotencyHeaders(msgspec.Struct, frozen=True):
    idempotency_key: Key | UnsetType = msgspec.field(default=msgspec.UNSET, name=HEADER)


def request_id_of(request: Request, principal: Principal) -> str:
    """Names the request among those of all clients, "" without a key. Raises BadRequest 400."""
    keys = request.headers.getlist(HEADER)
    if not keys:
        return ""
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        detail = f"{HEADER} is one word of 1-255 visible ASCII characters, sent once"
        raise BadRequest(400, detail, "bad_idempotency_key")
    return digest(principal.subject.encode(), keys[0].encode())


def fingerprint(kind: str, *parts: Any) -> str:
    """What is the same for requests that mean the same, whatever their JSON looks like."""
    return digest(kind.encode(), *(msgspec.json.encode(part, order="deterministic") for part in parts))


def digest(*parts: bytes) -> str:
    """Of each part and where it ends."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:32]


def told(response: Response, replayed: bool) -> Response:
    if replayed:
        response.headers[REPLAYED] = "true"
    return response
