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
from api.idempotency import digest, fingerprint, request_id_of, told
from api.openapi import id_except, link, operation, router
from api.problems import BadRequest, ItemError
from api.queries import Cursor, PageSize, cursor_of, given, place_of, read_query
from api.strict_json import split
from fleet.errors import PeerFault
from fleet.explain import Explanation
from fleet.job import Job, JobStatus
from fleet.job_record import HistoryEvent, JobFilter
from fleet.messages import Cancel, Cancelled, Get, JobSpec, Retry, Submit
from fleet.wall_time import rfc3339, wall_ns_of

id_except("job", "claim", "dead-letters", "redrive")
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
        keyed=True,
        body=(JobSpec, Annotated[list[JobSpec], Meta(min_length=1, max_length=1_000)]),
        refused=(503,),
        links=SUBMITTED,
    ),
)
async def submit(request: Request) -> Response:
    """One job, or a list of up to 1,000: all or nothing. 201 with the job or `{"jobs"}`. With
    `?partial=true` a list gets 200 and `{"results"}`, for each item `{"job"}` or `{"error"}`. A payload has
    at most 256 KiB, nested at most 64 deep. A full queue takes none of them (429). With an `Idempotency-Key`
    the same request gets the same answer again, with `Idempotency-Replayed: true`; another one with the same
    key gets 422."""
    door: Door = request.app.state.door
    principal = await door.principal(request)
    principal.need("operator")
    key = request_id_of(request, principal)
    partial = read_query(request, SubmitQuery).partial
    body = await read_body(request, LIST_BYTES)
    most = door.fleet.limits.max_payload_bytes
    if body.lstrip()[:1] != b"[":
        [job], replayed = await _submit(door, "one", [_spec(body, most)], key)
        return told(answer(job, 201), replayed)
    listed = split(body, "jobs", door.fleet.limits.max_jobs_per_submit)
    items = [_spec_or_error(item, most) async for item in in_turns(listed)]
    if partial == "true":
        results, replayed = await _results(door, listed, items, key)
        return told(answer(Results(results)), replayed)
    errors = [named(index, item) for index, item in enumerate(items) if isinstance(item, BadRequest)]
    if errors:
        raise BadRequest(422, f"{len(errors)} of {len(items)} jobs are invalid", "invalid", errors)
    specs = [item for item in items if isinstance(item, JobSpec)]
    made, replayed = await _submit(door, "list", specs, key)
    return told(answer(JobList(made), 201), replayed)


async def _submit(
    door: Door, kind: str, specs: list[JobSpec], key: str, bad: list[tuple[int, str]] | None = None
) -> tuple[list[Job], bool]:
    """The jobs, and whether they are those of an earlier request with the same key."""
    meaning = fingerprint(kind, [_normal(spec) for spec in specs], bad) if key else ""
    command = Submit([new_job_id() for _ in specs], specs, request_id=key, fingerprint=meaning)
    jobs: list[Job] = await door.fleet.execute(command)
    return jobs, jobs[0].job_id != command.job_ids[0]


def _normal(spec: JobSpec) -> JobSpec:
    """One of all ways to write it."""
    if spec.not_before is None:
        return spec
    return msgspec.structs.replace(spec, not_before=rfc3339(wall_ns_of(spec.not_before)))


async def _results(
    door: Door, listed: list[bytes], items: list[JobSpec | BadRequest], key: str
) -> tuple[list[ItemResult], bool]:
    """Where no item is good nothing is done, and nothing kept under the key."""
    specs = [item for item in items if isinstance(item, JobSpec)]
    bad = [(n, digest(listed[n])) for n, item in enumerate(items) if isinstance(item, BadRequest)]
    made, replayed = await _submit(door, "partial", specs, key, bad) if specs else ([], False)
    jobs = iter(made)
    results = [
        ItemResult(error=named(index, item)) if isinstance(item, BadRequest) else ItemResult(next(jobs))
        for index, item in enumerate(items)
    ]
    return results, replayed


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
    openapi_extra=operation({201: Retried}, role="operator", keyed=True, refused=(404, 409, 503)),
)
async def retry(request: Request) -> Response:
    door: Door = request.app.state.door
    principal = await door.principal(request)
    principal.need("operator")
    key = request_id_of(request, principal)
    original = request.path_params["job_id"]
    meaning = fingerprint("retry", original) if key else ""
    command = Retry(original, new_job_id(), request_id=key, fingerprint=meaning)
    job = await door.fleet.execute(command)
    retried = Retried(original, job.job_id, "a new job was submitted")
    return told(answer(retried, 201), job.job_id != command.new_job_id)


class HistoryQuery(msgspec.Struct, frozen=True):
    limit: PageSize = 500
    cursor: Cursor | UnsetType = UNSET


class History(msgspec.Struct, frozen=True):
    events: list[HistoryEvent]
    next_cursor: str | None


@jobs.get(
    "/{job_id:job}/history",
    summary="What happened to a job",
    openapi_extra=operation({200: History}, query=HistoryQuery, refused=(400, 404, 503)),
)
async def history(request: Request) -> Response:
    """Oldest first, as long as the job itself is kept. Of progress the first 1,000 reports."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    query, job_id = read_query(request, HistoryQuery), request.path_params["job_id"]
    skip = place_of(query.cursor)
    found = await door.fleet.history(job_id, skip, query.limit + 1)
    if not found:
        await door.fleet.execute(Get(job_id))
    following = skip + query.limit if len(found) > query.limit else 0
    return answer(History(found[: query.limit], cursor_of(following)))


@jobs.get(
    "/{job_id:job}/explain",
    summary="Why a job is still pending",
    openapi_extra=operation({200: Explanation}, refused=(404, 503)),
)
async def explain(request: Request) -> Response:
    """What it waits for, the robots that could take it (20 of them) and why they do not."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    return answer(await door.fleet.explain(request.path_params["job_id"]))
