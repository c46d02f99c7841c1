"""Jobs over HTTP: submit, look at, cancel, retry; and what robots do with them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from api.bodies import LIST_BYTES, REPORT_BYTES, answer, decode, in_turns, named, read_body
from api.door import Door
from api.openapi import id_except, link, operation, router
from api.problems import BadRequest, ItemError
from api.queries import Cursor, PageSize, cursor_of, given, place_of, read_query
from api.strict_json import split
from fleet.errors import PeerFault
from fleet.job import Job, JobEvent, JobStatus
from fleet.messages import (
    Cancel,
    Cancelled,
    Get,
    GrantedJob,
    Id,
    JobSpec,
    Report,
    RequestId,
    Retry,
    Submit,
    Text,
    Token,
    granted_job,
)
from fleet.wall_time import wall_ns_of

id_except("job", "claim")
jobs = router("jobs", "/jobs")
SUBMITTED = {
    word: link(f"jobs_{word}", job_id="$response.body#/job_id") for word in ("get", "cancel", "retry")
}
GRANTED = {
    word: link(
        f"jobs_{word}",
        {"robot_id": "$request.body#/robot_id", "token": "$response.body#/jobs/0/token"},
        job_id="$response.body#/jobs/0/job_id",
    )
    for word in ("start", "progress", "complete", "fail", "release", "cancelled")
}
ESCAPED = 4  # a payload within its bound may be so much longer on the wire, all escapes


def new_job_id() -> str:
    return f"job-{secrets.token_hex(10)}"


class SubmitQuery(msgspec.Struct, frozen=True):
    partial: Literal["true", "false"] = "false"


class JobList(msgspec.Struct, frozen=True):
    jobs: list[Job]


class ItemResult(msgspec.Struct, frozen=True):
    """Either."""

    job: Job | UnsetType = UNSET
    error: ItemError | UnsetType = UNSET


class Results(msgspec.Struct, frozen=True):
    """In the order of the items."""

    results: list[ItemResult]


@jobs.post(
    "",
    summary="Submit a job, or a list of jobs",
    openapi_extra=operation(
        {201: (Job, JobList), 200: Results},
        role="operator",
        query=SubmitQuery,
        body=(JobSpec, Annotated[list[JobSpec], Meta(min_length=1, max_length=1_000)]),
        refused=(503,),
        links=SUBMITTED,
    ),
)
async def submit(request: Request) -> Response:
    """One job, or a list of up to 1,000: all or nothing. 201 with the job or `{"jobs"}`. With
    `?partial=true` a list gets 200 and `{"results"}`, for each item `{"job"}` or `{"error"}`. A payload has
    at most 256 KiB, nested at most 64 deep."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    partial = read_query(request, SubmitQuery).partial
    body = await read_body(request, LIST_BYTES)
    most = door.fleet.limits.max_payload_bytes
    if body.lstrip()[:1] != b"[":
        [job] = await _submit(door, [_spec(body, most)])
        return answer(job, 201)
    listed = split(body, "jobs", door.fleet.limits.max_jobs_per_submit)
    items = [_spec_or_error(item, most) async for item in in_turns(listed)]
    if partial == "true":
        return answer(Results(await _results(door, items)))
    errors = [named(index, item) for index, item in enumerate(items) if isinstance(item, BadRequest)]
    if errors:
        raise BadRequest(422, f"{len(errors)} of {len(items)} jobs are invalid", "invalid", errors)
    return answer(JobList(await _submit(door, [item for item in items if isinstance(item, JobSpec)])), 201)


async def _submit(door: Door, specs: list[JobSpec]) -> list[Job]:
    jobs: list[Job] = await door.fleet.execute(Submit([new_job_id() for _ in specs], specs))
    return jobs


async def _results(door: Door, items: list[JobSpec | BadRequest]) -> list[ItemResult]:
    specs = [item for item in items if isinstance(item, JobSpec)]
    jobs = iter(await _submit(door, specs) if specs else ())
    return [
        ItemResult(error=named(index, item)) if isinstance(item, BadRequest) else ItemResult(next(jobs))
        for index, item in enumerate(items)
    ]


def _spec(body: bytes, max_payload_bytes: int) -> JobSpec:
    """Raises BadRequest for all that makes a job impossible."""
    spec = decode(body, JobSpec) if len(body) <= ESCAPED * max_payload_bytes else None
    if spec is None or len(msgspec.json.encode(spec.payload)) > max_payload_bytes:
        raise BadRequest(413, f"the payload is larger than {max_payload_bytes} bytes", "payload_too_large")
    if spec.not_before is not None:
        try:
            wall_ns_of(spec.not_before)
        except PeerFault as error:
            raise BadRequest(422, f"not_before: {error.detail}", error.code) from None
    return spec


def _spec_or_error(item: bytes, max_payload_bytes: int) -> JobSpec | BadRequest:
    try:
        return _spec(item, max_payload_bytes)
    except BadRequest as error:
        return error


class JobsQuery(msgspec.Struct, frozen=True):
    status: JobStatus | UnsetType = UNSET
    robot_id: str | UnsetType = UNSET
    environment: str | UnsetType = UNSET
    limit: PageSize = 100
    cursor: Cursor | UnsetType = UNSET


class JobPage(msgspec.Struct, frozen=True):
    jobs: list[Job]
    next_cursor: str | None


@jobs.get(
    "",
    summary="Look through the jobs",
    openapi_extra=operation({200: JobPage}, query=JobsQuery, refused=(400, 503)),
)
async def page(request: Request) -> Response:
    """Newest first. A page may hold fewer than `limit` jobs and yet have a `next_cursor`."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    query = read_query(request, JobsQuery)
    before = place_of(query.cursor)
    found, following = await door.fleet.jobs(
        query.status or None, given(query.robot_id), given(query.environment), before, query.limit
    )
    return answer(JobPage(found, cursor_of(following)))


@jobs.get("/{job_id:job}", summary="One job", openapi_extra=operation({200: Job}, refused=(404, 503)))
async def get(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    return answer(await door.fleet.execute(Get(request.path_params["job_id"])))


@jobs.post(
    "/{job_id:job}/cancel",
    summary="Cancel a job, or ask its robot to stop it",
    openapi_extra=operation({200: Cancelled}, role="operator", refused=(404, 503)),
)
async def cancel(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    return answer(await door.fleet.execute(Cancel(request.path_params["job_id"])))


class Retried(msgspec.Struct, frozen=True):
    original_job_id: str
    new_job_id: str
    message: str


@jobs.post(
    "/{job_id:job}/retry",
    summary="Submit a job that ended without success once more",
    openapi_extra=operation({201: Retried}, role="operator", refused=(404, 409, 503)),
)
async def retry(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    original = request.path_params["job_id"]
    job = await door.fleet.execute(Retry(original, new_job_id()))
    return answer(Retried(original, job.job_id, "a new job was submitted"), 201)


# -- robots


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


@jobs.post(
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
    body = decode(await read_body(request), ClaimBody)
    principal.act_as(body.robot_id)
    granting = door.fleet.claim(body.robot_id, body.request_id, body.limit, body.wait_ms)
    leaving = asyncio.ensure_future(request.receive())
    assert door.closing is not None
    any_of: set[asyncio.Future[Any]] = {granting, leaving, door.closing}
    await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not granting.done():  # the robot hung up, or this server goes away
        door.fleet.withdraw(body.robot_id, body.request_id, granting)
        return answer(Grants([]))
    return answer(Grants([granted_job(grant) for grant in granting.result().grants]))


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


@jobs.put(
    "/{job_id:job}/progress",
    summary="Tell how far a job is",
    openapi_extra=operation({200: Job}, role="robot", body=ProgressBody, refused=(404, 409, 503)),
)
async def progress(request: Request) -> Response:
    door: Door = request.app.state.door
    principal = await door.principal(request)
    body = decode(await read_body(request), ProgressBody)
    principal.act_as(body.robot_id)
    job_id = request.path_params["job_id"]
    said = Report(JobEvent.PROGRESS, job_id, body.robot_id, body.token, progress=body.progress)
    return answer(await door.fleet.execute(said))


REPORTS = {
    JobEvent.START: ("start", "Start a granted job"),
    JobEvent.COMPLETE: ("complete", "End a running job with its result"),
    JobEvent.FAIL: ("fail", "End a job without success"),
    JobEvent.RELEASE: ("release", "Give a job back undone"),
    JobEvent.CANCELLED: ("cancelled", "Tell that a job was stopped as its cancellation asked"),
}
for event, (word, summary) in REPORTS.items():
    jobs.add_api_route(
        f"/{{job_id:job}}/{word}",
        _reporter(event),
        methods=["POST"],
        name=word,
        summary=summary,
        openapi_extra=operation({200: Job}, role="robot", body=ReportBody, refused=(404, 409, 503)),
    )
