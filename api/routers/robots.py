"""Robots over HTTP: who is in the fleet, and heartbeats of robots that hold no socket."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from api.bodies import BEATS_BYTES, answer, decode, decode_items, read_body
from api.door import Door
from api.openapi import id_except, link, operation, router
from api.problems import BadRequest
from api.queries import PageSize, given, read_query
from api.strict_json import split
from fleet.errors import Conflict, NotFound, PeerFault
from fleet.messages import (
    Beat,
    BeginDeletion,
    Cpu,
    DeleteRobot,
    EndClaim,
    GetRobot,
    GiveUpDeletion,
    HeartbeatAnswer,
    Held,
    Id,
    JobToken,
    Memory,
    RegisterRobot,
    ReportedStatus,
    RobotSpec,
    RobotTraits,
    SetRobotStatus,
    StatusSet,
    Text,
    UpdateRobot,
)
from fleet.robot import Robot, RobotStatus
from fleet.wall_time import WallTime, rfc3339, wall_ns_of

RESERVED_IDS = ("register", "heartbeats")  # routes beside `/robots/{robot_id}`
ID_RULE = "robot_id must have 1-64 of A-Za-z0-9_.:- and no leading dot, and not be register or heartbeats"
id_except("robot", *RESERVED_IDS)
robots = router("robots", "/robots")
ROBOT_ID = "$response.body#/robot_id"
REGISTERED = {
    word: link(f"robots_{word}", robot_id=ROBOT_ID)
    for word in ("get", "update", "set_status", "heartbeat", "delete")
}
REGISTERED["claim"] = link("jobs_claim", {"robot_id": ROBOT_ID})


def checked_id(robot_id: str) -> str:
    """Raises PeerFault for an id under which no route would find the robot again."""
    try:
        if robot_id not in RESERVED_IDS:
            return msgspec.convert(robot_id, Id)
    except msgspec.ValidationError:
        pass
    raise PeerFault(ID_RULE)


class RobotsQuery(msgspec.Struct, frozen=True):
    status: RobotStatus | UnsetType = UNSET
    environment: str | UnsetType = UNSET
    limit: PageSize = 100
    offset: Annotated[int, Meta(ge=0, le=10**9)] = 0


class RobotPage(msgspec.Struct, frozen=True):
    robots: list[Robot]
    total: int


@robots.get(
    "",
    summary="Look through the robots",
    openapi_extra=operation({200: RobotPage}, query=RobotsQuery, refused=(503,)),
)
async def page(request: Request) -> Response:
    """By id; `total` counts all that match."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    query = read_query(request, RobotsQuery)
    found, total = await door.fleet.robots(
        query.status or None, given(query.environment), query.limit, query.offset
    )
    return answer(RobotPage(found, total))


@robots.get(
    "/{robot_id:robot}", summary="One robot", openapi_extra=operation({200: Robot}, refused=(404, 503))
)
async def get(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    return answer(await door.fleet.administer(GetRobot(request.path_params["robot_id"])))


@robots.post(
    "/register",
    summary="Register a robot, or replace what it says of itself",
    openapi_extra=operation({201: Robot}, role="robot", body=RobotSpec, refused=(409, 503), links=REGISTERED),
)
async def register(request: Request) -> Response:
    door: Door = request.app.state.door
    principal = await door.principal(request)
    spec = decode(await read_body(request), RobotSpec)
    principal.act_as(spec.robot_id)
    if spec.robot_id in RESERVED_IDS:
        raise BadRequest(409, f"no robot can be called {spec.robot_id}: choose another id", "reserved_id")
    return answer(await door.fleet.administer(RegisterRobot(spec)), 201)


@robots.put(
    "/{robot_id:robot}",
    summary="Replace what a robot says of itself",
    openapi_extra=operation({200: Robot}, role="robot", body=RobotTraits, refused=(404, 503)),
)
async def update(request: Request) -> Response:
    """What is not given goes back to its default."""
    door: Door = request.app.state.door
    principal = await door.principal(request)
    robot_id = request.path_params["robot_id"]
    principal.act_as(robot_id)
    traits = decode(await read_body(request), RobotTraits)
    spec = RobotSpec(robot_id=robot_id, **msgspec.structs.asdict(traits))
    return answer(await door.fleet.administer(UpdateRobot(spec)))


class Deleted(msgspec.Struct, frozen=True):
    robot_id: str
    deleted: bool = True


@robots.delete(
    "/{robot_id:robot}",
    summary="Delete a robot and revoke its keys",
    openapi_extra=operation({200: Deleted}, role="operator", refused=(404, 409, 503)),
)
async def delete(request: Request) -> Response:
    """Refused while the robot holds jobs. Its keys are revoked with it."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    robot_id = request.path_params["robot_id"]
    # First nothing new for it, then what it holds: a claim in between comes too late.
    admission: int = await door.fleet.administer(BeginDeletion(robot_id))
    await door.fleet.execute(EndClaim(robot_id, admission))
    held = await door.fleet.execute(Held(robot_id))
    if held:
        await door.fleet.administer(GiveUpDeletion(robot_id))
        raise Conflict(
            f"{robot_id} holds {len(held)} jobs: drain it, and delete it when they are done", "busy_robot"
        )
    await door.fleet.administer(DeleteRobot(robot_id, admission))
    return answer(Deleted(robot_id))


class StatusBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`status`: "maintenance" enters it, "idle" leaves it. `drain`: no new jobs while true. What is entered
    may carry a `note`, and a time to come, `until`, at which it ends by itself."""

    status: Literal["maintenance", "idle"] | None = None
    drain: bool | None = None
    note: Text = ""
    until: WallTime | None = None


@robots.put(
    "/{robot_id:robot}/status",
    summary="Put a robot into maintenance, drain it, or end either",
    openapi_extra=operation({200: Robot}, role="operator", body=StatusBody, refused=(404, 503)),
)
async def set_status(request: Request) -> Response:
    """What is not named stays as it is. Entered again, it has the new note and end."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("operator")
    command = _status_command(request.path_params["robot_id"], decode(await read_body(request), StatusBody))
    done: StatusSet = await door.fleet.administer(command)
    if command.maintenance or command.draining:
        # The registry admits no further claim, and the one that waits or is on its way ends empty.
        await door.fleet.execute(EndClaim(command.robot_id, done.admission))
    return answer(done.robot)


def _status_command(robot_id: str, body: StatusBody) -> SetRobotStatus:
    """Raises BadRequest for an end without a begin, or one that has passed."""
    maintenance = None if body.status is None else body.status == "maintenance"
    if (body.note or body.until) and not (maintenance or body.drain):
        raise BadRequest(422, "note and until go with status maintenance or drain true", "invalid")
    if body.until is not None and _until_ns(body.until) <= time.time_ns():
        raise BadRequest(422, "until: this time has passed", "past_time")
    return SetRobotStatus(robot_id, maintenance, body.drain, body.note, body.until)


def _until_ns(until: str) -> int:
    try:
        return wall_ns_of(until)
    except PeerFault as error:
        raise BadRequest(422, f"until: {error.detail}", error.code) from None


class BeatBody(msgspec.Struct, frozen=True, kw_only=True):
    status: ReportedStatus = "idle"
    cpu_percent: Cpu = 0.0
    memory_mb: Memory = 0.0
    jobs: Annotated[list[JobToken], Meta(max_length=100)] = []


class NamedBeatBody(BeatBody, frozen=True, kw_only=True):
    robot_id: Id


class BeatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`cancel` lists the jobs to stop; with `drain` there will be no more. Not `ok`: register first."""

    ok: bool
    timestamp: WallTime
    next_heartbeat_ms: int
    cancel: list[str]
    drain: bool


class NamedBeatAnswer(BeatAnswer, frozen=True, kw_only=True):
    robot_id: str


Beats = Annotated[list[NamedBeatBody], Meta(max_length=1_000)]


def _send(door: Door, robot_id: str, body: BeatBody) -> asyncio.Future[HeartbeatAnswer]:
    ids = [job.job_id for job in body.jobs]
    return door.fleet.heartbeat(Beat(robot_id, body.status, body.cpu_percent, body.memory_mb, ids), body.jobs)


def _beaten(beaten: HeartbeatAnswer) -> BeatAnswer:
    return BeatAnswer(
        ok=not beaten.refused,
        timestamp=rfc3339(time.time_ns()),
        next_heartbeat_ms=beaten.next_heartbeat_ms,
        cancel=beaten.cancel,
        drain=beaten.drain,
    )


@robots.post(
    "/{robot_id:robot}/heartbeat",
    summary="One robot's heartbeat",
    openapi_extra=operation({200: BeatAnswer}, role="robot", body=BeatBody, refused=(404, 503)),
)
async def heartbeat(request: Request) -> Response:
    door: Door = request.app.state.door
    principal = await door.principal(request)
    robot_id = request.path_params["robot_id"]
    principal.act_as(robot_id)
    beaten = await _send(door, robot_id, decode(await read_body(request), BeatBody))
    if beaten.refused:
        raise NotFound(f"no robot {robot_id}; register it first")
    return answer(_beaten(beaten))


@robots.post(
    "/heartbeats",
    summary="Heartbeats of many robots",
    openapi_extra=operation({200: list[NamedBeatAnswer]}, role="robot", body=Beats, refused=(503,)),
)
async def heartbeats(request: Request) -> Response:
    """A list of up to 1,000, each with its `robot_id`; a list of answers, in order."""
    door: Door = request.app.state.door
    principal = await door.principal(request)
    listed = split(await read_body(request, BEATS_BYTES), "heartbeats", 1_000, least=0)
    bodies = await decode_items(listed, NamedBeatBody)
    for body in bodies:
        principal.act_as(body.robot_id)
    beaten = await asyncio.gather(*(_send(door, body.robot_id, body) for body in bodies))
    answers = (_beaten(reply) for reply in beaten)
    named = [
        NamedBeatAnswer(robot_id=body.robot_id, **msgspec.structs.asdict(said))
        for body, said in zip(bodies, answers, strict=True)
    ]
    return answer(named)
