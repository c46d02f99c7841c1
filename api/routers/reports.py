"""What robots do with jobs over HTTP: claim them, and report on those that they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Unauthenticated
from api.bodies import REPORT_BYTES, answer, decode, read_body
from api.credentials import WaitingRequest
from api.door import Door
from api.openapi import link, operation, router
from fleet.job import Job, JobEvent
from fleet.messages import GrantedJob, Id, Report, RequestId, Text, Token, granted_job

reports = router("jobs", "/jobs")
GRANTED = {
    word: link(
        f"jobs_{word}",
        {"robot_id": "$request.body#/robot_id", "token": "$response.body#/jobs/0/token"},
        job_id="$response.body#/jobs/0/job_id",
    )
    for word in ("start", "progress", "complete", "fail", "release", "cancelled")
}


class ClaimBody(msgspec.Struct, frozen=True):
    robot_id: Id
    request_id: RequestId
    limit: Annotated[int, Meta(ge=1, le=10)] = 1
    wait_ms: Annotated[int, Meta(ge=0, le=30_000)] = 0


class ReportBody(msgspec.Struct, frozen=True):
    robot_id: Id
    token: Token
    result: Any = None
    error: Annotated[str, Meta(max_length=10_000)] | None = None
    retryable: bool = True


class ProgressBody(msgspec.Struct, frozen=True):
    robot_id: Id
    token: Token
    progress: Annotated[float, Meta(ge=0, le=100)]
    current_node: Text | None = None
    message: Text | None = None


class Grants(msgspec.Struct, frozen=True):
    jobs: list[GrantedJob]


@reports.post(
    "/claim",
    summary="Ask for work",
    openapi_extra=operation(
        {200: Grants}, role="robot", body=ClaimBody, refused=(404, 409, 503), links=GRANTED
    ),
)
async def claim(request: Request) -> Response:
    """Empty when nothing fits within `wait_ms`. The same `request_id` gets the same jobs again."""
    door: Door = request.app.state.door
    principal = await door.principal(request)
    waiting = WaitingRequest()
    door.credentials.watch(waiting, principal)
    try:
        body = decode(await read_body(request), ClaimBody)
        principal.act_as(body.robot_id)
        return answer(Grants(await _granted(door, request, body, waiting.ended)))
    finally:
        door.credentials.forget(waiting)


async def _granted(
    door: Door, request: Request, body: ClaimBody, ended: asyncio.Future[str]
) -> list[GrantedJob]:
    """Raises Unauthenticated if the credential of the request ends before anything is granted to it."""
    granting = door.fleet.claim(body.robot_id, body.request_id, body.limit, body.wait_ms)
    leaving = asyncio.ensure_future(request.receive())
    assert door.closing is not None
    any_of: set[asyncio.Future[Any]] = {granting, leaving, door.closing, ended}
    await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if granting.done():
        return [granted_job(grant) for grant in granting.result().grants]
    door.fleet.withdraw(body.robot_id, body.request_id, granting)
    if ended.done():
        raise Unauthenticated(ended.result())
    return []  # the robot hung up, or this server goes away


def _reporter(event: JobEvent) -> Callable[[Request], Awaitable[Response]]:
    async def report(request: Request) -> Response:
        door: Door = request.app.state.door
        principal = await door.principal(request)
        body = decode(await read_body(request, REPORT_BYTES), ReportBody)
        principal.act_as(body.robot_id)
        job_id = request.path_params["job_id"]
        said = Report(event, job_id, body.robot_id, body.token, body.result, body.error, body.retryable)
        return answer(await door.fleet.execute(said))

    return report


@reports.put(
    "/{job_id}/progress",
    summary="Tell how far a job is",
    openapi_extra=operation({200: Job}, role="robot", body=ProgressBody, refused=(404, 409, 503)),
)
async def progress(request: Request) -> Response:
    door: Door = request.app.state.door
    principal = await door.principal(request)
    body = decode(await read_body(request), ProgressBody)
    principal.act_as(body.robot_id)
    job_id = request.path_params["job_id"]
    said = Report(
        JobEvent.PROGRESS,
        job_id,
        body.robot_id,
        body.token,
        progress=body.progress,
        current_node=body.current_node,
        message=body.message,
    )
    return answer(await door.fleet.execute(said))


REPORTS = {
    JobEvent.START: ("start", "Start a granted job"),
    JobEvent.COMPLETE: ("complete", "End a running job with its result"),
    JobEvent.FAIL: ("fail", "End a job without success"),
    JobEvent.RELEASE: ("release", "Give a job back undone"),
    JobEvent.CANCELLED: ("cancelled", "Tell that a job was stopped as its cancellation asked"),
}
for event, (word, summary) in REPORTS.items():
    reports.add_api_route(
        f"/{{job_id}}/{word}",
        _reporter(event),
        methods=["POST"],
        name=word,
        summary=summary,
        openapi_extra=operation({200: Job}, role="robot", body=ReportBody, refused=(404, 409, 503)),
    )
