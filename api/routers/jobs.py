"""Jobs over HTTP for those who submit and watch them: submit, look at, cancel, retry."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from api.bodies import LIST_BYTES, answer, decode, in_turns, named, read_body
from api.door import Door
from api.openapi import id_except, link, operation, router
from api.problems import BadRequest, ItemError
from api.queries import Cursor, PageSize, cursor_of, given, place_of, read_query
from api.strict_json import split
from fleet.errors import PeerFault
from fleet.job import Job, JobStatus
from fleet.job_record import JobFilter
from fleet.messages import Cancel, Cancelled, Get, JobSpec, Retry, Submit
from fleet.wall_time import wall_ns_of

id_except("job", "claim")
jobs = router("jobs", "/jobs")
SUBMITTED = {
    word: link(f"jobs_{word}", job_id="$response.body#/job_id") for word in ("get", "cancel", "retry")
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
    stuck: Literal["true"] | UnsetType = UNSET
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
    """Newest first. A page may hold fewer than `limit` jobs and yet have a `next_cursor`. `stuck` jobs are
    those whose robot is alive and was not heard to get on with them for ten minutes."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    query = read_query(request, JobsQuery)
    before = place_of(query.cursor)
    status, stuck = query.status or None, query.stuck == "true" or None
    wanted = JobFilter(status, given(query.robot_id), given(query.environment), stuck=stuck)
    found, following = await door.fleet.jobs(wanted, before, query.limit)
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
