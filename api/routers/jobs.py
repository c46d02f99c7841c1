"""Jobs over HTTP: submit, look at, cancel."""

from __future__ import annotations

import secrets

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import answer, decode, read_body, whole_number
from api.door import Door
from api.problems import BadRequest
from fleet.job import JobStatus
from fleet.messages import Cancel, Get, JobSpec, Submit


def new_job_id() -> str:
    return f"job-{secrets.token_hex(10)}"


async def submit(request: Request) -> Response:
    """One job, or a list of up to 1,000: all or nothing. 201 with the job or `{"jobs"}`."""
    door: Door = request.app.state.door
    door.principal(request).need("operator")
    body = await read_body(request)
    several = body.lstrip()[:1] == b"["
    specs = _specs(body, door) if several else [decode(body, JobSpec)]
    for index, spec in enumerate(specs):
        if len(msgspec.json.encode(spec.payload)) > door.fleet.limits.max_payload_bytes:
            raise BadRequest(413, f"the payload of job {index} is too large", "payload_too_large")
    jobs = await door.fleet.execute(Submit([new_job_id() for _ in specs], specs))
    return answer({"jobs": jobs} if several else jobs[0], 201)


def _specs(body: bytes, door: Door) -> list[JobSpec]:
    """Raises BadRequest 422 that names each bad item."""
    items = decode(body, list[msgspec.Raw])
    limit = door.fleet.limits.max_jobs_per_submit
    if not 1 <= len(items) <= limit:
        raise BadRequest(422, f"a list holds 1 to {limit} jobs, this one {len(items)}", "bad_list")
    specs, errors = [], []
    for index, item in enumerate(items):
        try:
            specs.append(decode(bytes(item), JobSpec))
        except BadRequest as error:
            errors.append({"index": index, "detail": error.detail})
    if errors:
        raise BadRequest(422, f"{len(errors)} of {len(items)} jobs are invalid", "invalid", errors)
    return specs


async def page(request: Request) -> Response:
    """Newest first: `status`, `robot_id`, `environment`, `limit` 1-500, `cursor`. A page may hold fewer
    than `limit` jobs and yet have a `next_cursor`."""
    door: Door = request.app.state.door
    door.principal(request).need("viewer")
    query = request.query_params
    status = query.get("status")
    if status is not None and status not in set(JobStatus):
        raise BadRequest(422, f"status must be one of {', '.join(JobStatus)}", "bad_parameter")
    limit = whole_number(query.get("limit"), "limit", 100, 1, 500)
    before = whole_number(query.get("cursor"), "cursor", 0, 1, 10**18)
    jobs, following = await door.fleet.jobs(
        status, query.get("robot_id"), query.get("environment"), before, limit
    )
    return answer({"jobs": jobs, "next_cursor": str(following) if following else None})


async def get(request: Request) -> Response:
    door: Door = request.app.state.door
    door.principal(request).need("viewer")
    return answer(await door.fleet.execute(Get(request.path_params["job_id"])))


async def cancel(request: Request) -> Response:
    door: Door = request.app.state.door
    door.principal(request).need("operator")
    return answer(await door.fleet.execute(Cancel(request.path_params["job_id"])))


routes = [
    Route("/api/v1/jobs", submit, methods=["POST"]),
    Route("/api/v1/jobs", page, methods=["GET"]),
    Route("/api/v1/jobs/{job_id}", get, methods=["GET"]),
    Route("/api/v1/jobs/{job_id}/cancel", cancel, methods=["POST"]),
]
