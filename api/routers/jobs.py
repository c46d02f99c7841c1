"""Jobs over HTTP: submit, look at, cancel, retry; and what robots do with them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import (
    LIST_BYTES,
    REPORT_BYTES,
    answer,
    decode,
    in_turns,
    named,
    read_body,
    whole_number,
)
from api.door import Door
from api.problems import BadRequest
from api.strict_json import split
from fleet.errors import PeerFault
from fleet.job import Job, JobEvent, JobStatus
from fleet.messages import (
    Cancel,
    Get,
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

ESCAPED = 4  # a payload within its bound may be so much longer on the wire, all escapes


def new_job_id() -> str:
    return f"job-{secrets.token_hex(10)}"


async def submit(request: Request) -> Response:
    """One job, or a list of up to 1,000: all or nothing. 201 with the job or `{"jobs"}`. With
    `?partial=true` a list gets 200 and `{"results"}`, for each item `{"job"}` or `{"error"}`."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    partial = request.query_params.get("partial", "false")
    if partial not in ("true", "false"):
        raise BadRequest(422, "partial must be true or false", "bad_parameter")
    body = await read_body(request, LIST_BYTES)
    most = door.fleet.limits.max_payload_bytes
    if body.lstrip()[:1] != b"[":
        [job] = await _submit(door, [_spec(body, most)])
        return answer(job, 201)
    listed = split(body, "jobs", door.fleet.limits.max_jobs_per_submit)
    items = [_spec_or_error(item, most) async for item in in_turns(listed)]
    if partial == "true":
        return answer({"results": await _results(door, items)})
    errors = [named(index, item) for index, item in enumerate(items) if isinstance(item, BadRequest)]
    if errors:
        raise BadRequest(422, f"{len(errors)} of {len(items)} jobs are invalid", "invalid", errors)
    return answer({"jobs": await _submit(door, [item for item in items if isinstance(item, JobSpec)])}, 201)


async def _submit(door: Door, specs: list[JobSpec]) -> list[Job]:
    jobs: list[Job] = await door.fleet.execute(Submit([new_job_id() for _ in specs], specs))
    return jobs


async def _results(door: Door, items: list[JobSpec | BadRequest]) -> list[dict[str, Any]]:
    specs = [item for item in items if isinstance(item, JobSpec)]
    jobs = iter(await _submit(door, specs) if specs else ())
    return [
        {"error": named(index, item)} if isinstance(item, BadRequest) else {"job": next(jobs)}
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


async def page(request: Request) -> Response:
    """Newest first: `status`, `robot_id`, `environment`, `limit` 1-500, `cursor`. A page may hold fewer
    than `limit` jobs and yet have a `next_cursor`."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    query = request.query_params
    status = query.get("status")
    if status is not None and status not in set(JobStatus):
        raise BadRequest(422, f"status must be one of {', '.join(JobStatus)}", "bad_parameter")
    limit = whole_number(query.get("limit"), "limit", 100, 1, 500)
    before = _before(query.get("cursor"))
    jobs, following = await door.fleet.jobs(
        status, query.get("robot_id"), query.get("environment"), before, limit
    )
    return answer({"jobs": jobs, "next_cursor": str(following) if following else None})


def _before(cursor: str | None) -> int:
    """The place that a `next_cursor` names. Raises BadRequest 400."""
    try:
        return whole_number(cursor, "cursor", 0, 1, 10**18)
    except BadRequest:
        detail = "this cursor is none of ours: send the next_cursor of the page before, as it is"
        raise BadRequest(400, detail, "bad_cursor") from None


async def get(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    return answer(await door.fleet.execute(Get(request.path_params["job_id"])))


async def cancel(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    return answer(await door.fleet.execute(Cancel(request.path_params["job_id"])))


async def retry(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    original = request.path_params["job_id"]
    job = await door.fleet.execute(Retry(original, new_job_id()))
    message = "a new job was submitted"
    return answer({"original_job_id": original, "new_job_id": job.job_id, "message": message}, 201)


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


async def claim(request: Request) -> Response:
    """`{"jobs": [{...job, "token", "lease_ms"}]}`, empty when nothing fits within `wait_ms`."""
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
        return answer({"jobs": []})
    return answer({"jobs": [granted_job(grant) for grant in granting.result().grants]})


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


async def progress(request: Request) -> Response:
    door: Door = request.app.state.door
    principal = await door.principal(request)
    body = decode(await read_body(request), ProgressBody)
    principal.act_as(body.robot_id)
    job_id = request.path_params["job_id"]
    said = Report(JobEvent.PROGRESS, job_id, body.robot_id, body.token, progress=body.progress)
    return answer(await door.fleet.execute(said))


REPORTS = {
    "start": JobEvent.START,
    "complete": JobEvent.COMPLETE,
    "fail": JobEvent.FAIL,
    "release": JobEvent.RELEASE,
    "cancelled": JobEvent.CANCELLED,
}

routes = [
    Route("/api/v1/jobs", submit, methods=["POST"]),
    Route("/api/v1/jobs", page, methods=["GET"]),
    Route("/api/v1/jobs/claim", claim, methods=["POST"]),
    Route("/api/v1/jobs/{job_id}", get, methods=["GET"]),
    Route("/api/v1/jobs/{job_id}/cancel", cancel, methods=["POST"]),
    Route("/api/v1/jobs/{job_id}/retry", retry, methods=["POST"]),
    Route("/api/v1/jobs/{job_id}/progress", progress, methods=["PUT"]),
    *(
        Route(f"/api/v1/jobs/{{job_id}}/{word}", _reporter(event), methods=["POST"])
        for word, event in REPORTS.items()
    ),
]
