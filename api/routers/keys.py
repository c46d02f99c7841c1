"""Robot API keys over HTTP, for admins: issue, list, revoke."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import answer, decode, read_body
from api.door import Door
from fleet.keys import RANDOM_BYTES, KeyRecord, digest_of, key_secret
from fleet.messages import Id, IssueKey, RevokeKey

TEN_YEARS_S = 315_360_000


class IssueBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key for one robot, which need not be registered yet; without `ttl_s` it never expires."""

    robot_id: Id
    name: Annotated[str, Meta(max_length=255)] = ""
    ttl_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] | None = None


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
    return answer(msgspec.structs.asdict(record.key) | {"api_key": secret}, 201)


async def page(request: Request) -> Response:
    """`{"keys"}`: all of them, revoked ones included, without secrets; `robot_id` filters."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    robot_id = request.query_params.get("robot_id")
    keys = [record.key for record in await door.fleet.keys() if robot_id in (None, record.key.robot_id)]
    return answer({"keys": keys})


async def revoke(request: Request) -> Response:
    """The key; its live sockets are closed 4001 within a second."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("admin")
    return answer(await door.fleet.administer(RevokeKey(request.path_params["key_id"])))


routes = [
    Route("/api/v1/robot-api-keys", issue, methods=["POST"]),
    Route("/api/v1/robot-api-keys", page, methods=["GET"]),
    Route("/api/v1/robot-api-keys/{key_id}/revoke", revoke, methods=["POST"]),
]
