"""Robots over HTTP: who is in the fleet."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import answer, whole_number
from api.door import Door
from api.problems import BadRequest
from fleet.messages import GetRobot
from fleet.robot import RobotStatus


async def page(request: Request) -> Response:
    """`status`, `environment`, `limit` 1-500, `offset`."""
    door: Door = request.app.state.door
    door.principal(request).need("viewer")
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
    door.principal(request).need("viewer")
    return answer(await door.fleet.administer(GetRobot(request.path_params["robot_id"])))


routes = [
    Route("/api/v1/robots", page, methods=["GET"]),
    Route("/api/v1/robots/{robot_id}", get, methods=["GET"]),
]
