"""Robot API keys over HTTP, for admins: issue, list, revoke."""

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
from api.queries import given, read_query
from fleet.keys import RANDOM_BYTES, ApiKey, KeyRecord, digest_of, key_secret
from fleet.messages import Id, IssueKey, RevokeKey

TEN_YEARS_S = 315_360_000
keys = router("keys", "/robot-api-keys")


class IssueBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key for one robot, which need not be registered yet; without `ttl_s` it never expires."""

    robot_id: Id
    name: Annotated[str, Meta(max_length=255)] = ""
    ttl_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] | None = None


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
        links={"revoke": link("keys_revoke", key_id="$response.body#/key_id")},
    ),
)
async def issue(request: Request) -> Response:
    """201 with the key and, this once, its secret in `api_key`."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    body = decode(await read_body(request), IssueBody)
    secret = key_secret(secrets.token_bytes(RANDOM_BYTES))
    key_id = f"key-{secrets.token_hex(8)}"
    command = IssueKey(key_id, body.robot_id, body.name, digest_of(secret), body.ttl_s)
    record: KeyRecord = await door.fleet.administer(command)
    door.keys.put(record)  # good here at once, at other doors as soon as they hear of it
    return answer(IssuedKey(**msgspec.structs.asdict(record.key), api_key=secret), 201)


class KeysQuery(msgspec.Struct, frozen=True):
    robot_id: str | UnsetType = UNSET


class KeyPage(msgspec.Struct, frozen=True):
    keys: list[ApiKey]


@keys.get(
    "",
    summary="Look through the keys",
    openapi_extra=operation({200: KeyPage}, role="admin", query=KeysQuery, refused=(503,)),
)
async def page(request: Request) -> Response:
    """All of them, revoked ones included, without secrets; `robot_id` filters."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    robot_id = given(read_query(request, KeysQuery).robot_id)
    found = [record.key for record in await door.fleet.keys() if robot_id in (None, record.key.robot_id)]
    return answer(KeyPage(found))


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
