"""Robot API keys over HTTP, for admins: issue, list, rotate, revoke."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import answer, decode, read_body, whole_number
from api.door import Door
from fleet.keys import RANDOM_BYTES, KeyRecord, Rotated, digest_of, key_secret
from fleet.messages import Id, IssueKey, RevokeKey, RotateKey

TEN_YEARS_S = 315_360_000
A_WEEK_S = 604_800
TimeToLive = Annotated[float, Meta(gt=0, le=TEN_YEARS_S)]


class IssueBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key for one robot, which need not be registered yet; without `ttl_s` it never expires."""

    robot_id: Id
    name: Annotated[str, Meta(max_length=255)] = ""
    ttl_s: TimeToLive | None = None


class RotateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The old key stays good for `grace_s`; without `ttl_s` the new one lives as long as the old one was
    issued for."""

    grace_s: Annotated[float, Meta(ge=0, le=A_WEEK_S)] = 0.0
    ttl_s: TimeToLive | None = None


async def issue(request: Request) -> Response:
    """201 with the key and, this once, its secret in `api_key`."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    body = decode(await read_body(request), IssueBody)
    key_id, secret = _new_key()
    command = IssueKey(key_id, body.robot_id, body.name, digest_of(secret), body.ttl_s)
    record: KeyRecord = await door.fleet.administer(command)
    door.keys.put(record)  # good here at once, at other doors as soon as they hear of it
    return _shown_once(record, secret)


def _new_key() -> tuple[str, str]:
    """Its id and its secret."""
    return f"key-{secrets.token_hex(8)}", key_secret(secrets.token_bytes(RANDOM_BYTES))


def _shown_once(record: KeyRecord, secret: str) -> Response:
    return answer(msgspec.structs.asdict(record.key) | {"api_key": secret}, 201)


async def rotate(request: Request) -> Response:
    """201 with the new key and, this once, its secret; the old key ends now, or after `grace_s`. The body
    may be left out."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    body = decode(await read_body(request), RotateBody) if _has_body(request) else RotateBody()
    new_id, secret = _new_key()
    command = RotateKey(request.path_params["key_id"], new_id, digest_of(secret), body.ttl_s, body.grace_s)
    rotated: Rotated = await door.fleet.administer(command)
    for record in (rotated.new, rotated.old):
        door.keys.put(record)
    return _shown_once(rotated.new, secret)


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


async def page(request: Request) -> Response:
    """`{"keys", "next_cursor"}`, newest first, dead ones too, without secrets: `robot_id`, `limit` 1-500,
    `cursor`."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    query = request.query_params
    limit = whole_number(query.get("limit"), "limit", 100, 1, 500)
    before = whole_number(query.get("cursor"), "cursor", 0, 1, 10**18)
    keys, following = await door.fleet.key_page(query.get("robot_id"), before, limit)
    return answer({"keys": keys, "next_cursor": str(following) if following else None})


async def revoke(request: Request) -> Response:
    """The key; its live sockets are closed 4001 within a second."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    return answer(await door.fleet.administer(RevokeKey(request.path_params["key_id"])))


routes = [
    Route("/api/v1/robot-api-keys", issue, methods=["POST"]),
    Route("/api/v1/robot-api-keys", page, methods=["GET"]),
    Route("/api/v1/robot-api-keys/{key_id}/rotate", rotate, methods=["POST"]),
    Route("/api/v1/robot-api-keys/{key_id}/revoke", revoke, methods=["POST"]),
]
