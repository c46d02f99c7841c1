"""Dead letters over HTTP: which there are, and trying them again after all."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from api.bodies import LIST_BYTES, answer, decode, read_body
from api.door import Door
from api.idempotency import fingerprint, request_id_of, told
from api.openapi import operation, router
from api.queries import Cursor, PageSize, cursor_of, given, place_of, read_query
from api.routers.jobs import JobPage
from fleet.dead_letters import DeadLetterFilter, Redrive, Redriven
from fleet.messages import Id

dead_letters = router("jobs", "/jobs")
Name = Annotated[str, Meta(max_length=255)]
Error = Annotated[str, Meta(max_length=10_000)]


class DeadLettersQuery(msgspec.Struct, frozen=True):
    name: str | UnsetType = msgspec.UNSET
    environment: str | UnsetType = msgspec.UNSET
    robot_id: str | UnsetType = msgspec.UNSET
    error: str | UnsetType = msgspec.UNSET
    limit: PageSize = 100
    cursor: Cursor | UnsetType = msgspec.UNSET


@dead_letters.get(
    "/dead-letters",
    summary="Look through the jobs that failed for good",
    openapi_extra=operation({200: JobPage}, query=DeadLettersQuery, refused=(400, 503)),
)
async def dead_letter_page(request: Request) -> Response:
    """Newest first, without those that were submitted again. `error` is found anywhere in the error;
    `robot_id` is the robot that had the job last. A page may be short and yet have a `next_cursor`."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    query = read_query(request, DeadLettersQuery)
    asked = (given(query.name), given(query.environment), given(query.robot_id), given(query.error))
    found, place = await door.fleet.dead_letters(
        DeadLetterFilter(*asked), place_of(query.cursor), query.limit
    )
    return answer(JobPage(found, cursor_of(place)))


class RedriveFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out admits all."""

    name: Name | None = None
    environment: Name | None = None
    robot_id: Name | None = None
    error: Error | None = None
    job_ids: Annotated[list[Id], Meta(max_length=1_000)] | None = None


class RedriveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    filter: RedriveFilter
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 1_000
    cursor: Cursor | None = None


class RedrivenPage(msgspec.Struct, frozen=True):
    """`remaining` are the dead letters that were not looked at yet, whether the filter admits them or not."""

    redriven: int
    remaining: int
    next_cursor: str | None


@dead_letters.post(
    "/redrive",
    summary="Submit dead letters once more",
    openapi_extra=operation(
        {200: RedrivenPage},
        role="operator",
        keyed=True,
        body=RedriveBody,
        refused=(503,),
    ),
)
async def redrive(request: Request) -> Response:
    """Each becomes a new job with `retry_of`, once; it has `retried_by` then. The oldest first, up to `limit`
    and 8 MiB of payloads a call, as far as the queue has room (429 if it has none): go on with `next_cursor`
    until there is none."""
    door: Door = request.app.state.door
    principal = await door.principal(request)
    principal.need("operator")
    request_id = request_id_of(request, principal)
    body = decode(await read_body(request, LIST_BYTES), RedriveBody)
    command = Redrive(
        _wanted(body.filter),
        place_of(msgspec.UNSET if body.cursor is None else body.cursor),
        body.limit,
        secrets.token_hex(8),
        request_id=request_id,
        fingerprint=fingerprint("redrive", body) if request_id else "",
    )
    done: Redriven = await door.fleet.redrive(command)
    page = RedrivenPage(done.redriven, done.remaining, cursor_of(done.place))
    return told(answer(page), done.call != command.call)


def _wanted(asked: RedriveFilter) -> DeadLetterFilter:
    return DeadLetterFilter(**{name: getattr(asked, name) for name in RedriveFilter.__struct_fields__})
