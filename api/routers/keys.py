"""Robot API keys over HTTP, for admins: issue, list, rotate, revoke."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from api.bodies import answer, decode, read_body
from api.door import Door
from api.openapi import link, operation, router
from api.queries import Cursor, PageSize, cursor_of, given, place_of, read_query
from fleet.keys import RANDOM_BYTES, ApiKey, KeyRecord, Rotated, digest_of, key_secret
from fleet.messages import Id, IssueKey, RevokeKey, RotateKey

TEN_YEARS_S = 315_360_000
A_WEEK_S = 604_800
TimeToLive = Annotated[float, Meta(gt=0, le=TEN_YEARS_S)]
keys = router("keys", "/robot-api-keys")
ISSUED = {word: link(f"keys_{word}", key_id="$response.body#/key_id") for word in ("rotate", "revoke")}


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


class IssuedKey(ApiKey, frozen=True, kw_only=True):
    """With its secret, this once."""

    api_key: str


@keys.post(
    "",
    summary="Issue a robot's API key",
    openapi_extra=operation(
        {201: IssuedKey},
        role="admin",
        body=IssueBody,
        refused=(503,),
        links=ISSUED,
    ),
)
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
    return answer(IssuedKey(**msgspec.structs.asdict(record.key), api_key=secret), 201)


@keys.post(
    "/{key_id}/rotate",
    summary="Put a new key in the place of one",
    openapi_extra=operation(
        {201: IssuedKey},
        role="admin",
        body=RotateBody,
        body_required=False,
        refused=(404, 409, 503),
        links=ISSUED,
    ),
)
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


class KeysQuery(msgspec.Struct, frozen=True):
    robot_id: str | UnsetType = UNSET
    limit: PageSize = 100
    cursor: Cursor | UnsetType = UNSET


class KeyPage(msgspec.Struct, frozen=True):
    keys: list[ApiKey]
    next_cursor: str | None


@keys.get(
    "",
    summary="Look through the keys",
    openapi_extra=operation({200: KeyPage}, role="admin", query=KeysQuery, refused=(400, 503)),
)
async def page(request: Request) -> Response:
    """Newest first, dead ones too, without secrets."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    query = read_query(request, KeysQuery)
    found, following = await door.fleet.key_page(given(query.robot_id), place_of(query.cursor), query.limit)
    return answer(KeyPage(found, cursor_of(following)))


@keys.post(
    "/{key_id}/revoke",
    summary="Revoke a key",
    openapi_extra=operation({200: ApiKey}, role="admin", refused=(404, 503)),
)
async def revoke(request: Request) -> Response:
    """The key; its live sockets are closed 4001 within a second."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    return answer(await door.fleet.administer(RevokeKey(request.path_params["key_id"])))
