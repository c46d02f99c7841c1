"""Robots over HTTP: who is in the fleet, and heartbeats of robots that hold no socket."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import BEATS_BYTES, answer, decode, decode_items, read_body, whole_number
from api.door import Door
from api.problems import BadRequest
from api.strict_json import split
from fleet.errors import Conflict, NotFound
from fleet.messages import (
    Beat,
    Cpu,
    DeleteRobot,
    EndClaim,
    GetRobot,
    HeartbeatAnswer,
    Held,
    Id,
    JobToken,
    Memory,
    RegisterRobot,
    ReportedStatus,
    RobotSpec,
    SetRobotStatus,
    UpdateRobot,
)
from fleet.robot import Robot, RobotStatus
from fleet.wall_time import rfc3339

MAX_HEARTBEATS = 1_000


async def page(request: Request) -> Response:
    """`status`, `environment`, `limit` 1-500, `offset`."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    query = request.query_params
    status = query.get("status")
    if status is not None and status not in set(RobotStatus):
        raise BadRequest(422, f"status must be one of {', '.join(RobotStatus)}", "bad_parameter")
    limit = whole_number(query.get("limit"), "limit", 100, 1, 500)
    offset = whole_number(query.get("offset"), "offset", 0, 0, 10**9)
    robots, total = await door.fleet.robots(status, query.get("environment"), limit, offset)
    return answer({"robots": robots, "total": total})


async def get(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    return answer(await door.fleet.administer(GetRobot(request.path_params["robot_id"])))


async def register(request: Request) -> Response:
    door: Door = request.app.state.door
    principal = await door.principal(request)
    spec = decode(await read_body(request), RobotSpec)
    principal.act_as(spec.robot_id)
    return answer(await door.fleet.administer(RegisterRobot(spec)), 201)


async def update(request: Request) -> Response:
    """Replaces what the robot says of itself; the id in the path wins."""
    door: Door = request.app.state.door
    principal = await door.principal(request)
    robot_id = request.path_params["robot_id"]
    principal.act_as(robot_id)
    fields = decode(await read_body(request), dict[str, Any])
    spec = decode(msgspec.json.encode(fields | {"robot_id": robot_id}), RobotSpec)
    return answer(await door.fleet.administer(UpdateRobot(spec)))


async def delete(request: Request) -> Response:
    """Refused while the robot holds jobs. Its keys are revoked with it."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    robot_id = request.path_params["robot_id"]
    before = await door.fleet.administer(GetRobot(robot_id))
    # First nothing new for it, then what it holds: a claim in between finds it draining.
    await _no_more_jobs(door, SetRobotStatus(robot_id, draining=True))
    held = await door.fleet.execute(Held(robot_id))
    if held:
        await door.fleet.administer(SetRobotStatus(robot_id, draining=before.draining))
        raise Conflict(
            f"{robot_id} holds {len(held)} jobs: drain it, and delete it when they are done", "busy_robot"
        )
    await door.fleet.administer(DeleteRobot(robot_id))
    return answer({"deleted": True, "robot_id": robot_id})


class StatusBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`status`: "maintenance" enters it, "idle" leaves it. `drain`: no new jobs while true."""

    status: Literal["maintenance", "idle"] | None = None
    drain: bool | None = None


async def set_status(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    body = decode(await read_body(request), StatusBody)
    maintenance = None if body.status is None else body.status == "maintenance"
    command = SetRobotStatus(request.path_params["robot_id"], maintenance, body.drain)
    if maintenance or body.drain:
        return answer(await _no_more_jobs(door, command))
    return answer(await door.fleet.administer(command))


async def _no_more_jobs(door: Door, command: SetRobotStatus) -> Robot:
    """The registry admits no further claim of the robot, and the one that waits ends empty."""
    robot: Robot = await door.fleet.administer(command)
    await door.fleet.execute(EndClaim(command.robot_id))
    return robot


class BeatBody(msgspec.Struct, frozen=True, kw_only=True):
    status: ReportedStatus = "idle"
    cpu_percent: Cpu = 0.0
    memory_mb: Memory = 0.0
    jobs: Annotated[list[JobToken], Meta(max_length=100)] = []


class NamedBeatBody(BeatBody, frozen=True, kw_only=True):
    robot_id: Id


def _send(door: Door, robot_id: str, body: BeatBody) -> asyncio.Future[HeartbeatAnswer]:
    ids = [job.job_id for job in body.jobs]
    return door.fleet.heartbeat(Beat(robot_id, body.status, body.cpu_percent, body.memory_mb, ids), body.jobs)


def _beaten(beaten: HeartbeatAnswer) -> dict[str, Any]:
    return {
        "ok": not beaten.refused,
        "timestamp": rfc3339(time.time_ns()),
        "next_heartbeat_ms": beaten.next_heartbeat_ms,
        "cancel": beaten.cancel,
        "drain": beaten.drain,
    }


async def heartbeat(request: Request) -> Response:
    door: Door = request.app.state.door
    principal = await door.principal(request)
    robot_id = request.path_params["robot_id"]
    principal.act_as(robot_id)
    beaten = await _send(door, robot_id, decode(await read_body(request), BeatBody))
    if beaten.refused:
        raise NotFound(f"no robot {robot_id}; register it first")
    return answer(_beaten(beaten))


async def heartbeats(request: Request) -> Response:
    """A list of up to 1,000 heartbeats, each with its `robot_id`; a list of answers, in order."""
    door: Door = request.app.state.door
    principal = await door.principal(request)
    listed = split(await read_body(request, BEATS_BYTES), "heartbeats", MAX_HEARTBEATS, least=0)
    bodies = await decode_items(listed, NamedBeatBody)
    for body in bodies:
        principal.act_as(body.robot_id)
    beaten = await asyncio.gather(*(_send(door, body.robot_id, body) for body in bodies))
    answers = [{"robot_id": b.robot_id, **_beaten(a)} for b, a in zip(bodies, beaten, strict=True)]
    return answer(answers)


routes = [
    Route("/api/v1/robots", page, methods=["GET"]),
    Route("/api/v1/robots/register", register, methods=["POST"]),
    Route("/api/v1/robots/heartbeats", heartbeats, methods=["POST"]),
    Route("/api/v1/robots/{robot_id}", get, methods=["GET"]),
    Route("/api/v1/robots/{robot_id}", update, methods=["PUT"]),
    Route("/api/v1/robots/{robot_id}", delete, methods=["DELETE"]),
    Route("/api/v1/robots/{robot_id}/status", set_status, methods=["PUT"]),
    Route("/api/v1/robots/{robot_id}/heartbeat", heartbeat, methods=["POST"]),
]
