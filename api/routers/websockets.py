"""The four streams of the reference."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.websockets import WebSocket

from api.auth import Principal, Unauthenticated
from api.broadcasts import (
    broadcast_job_update,
    broadcast_queue_metrics,
    broadcast_robot_status,
    on_job_status_changed,
    on_queue_depth_changed,
    on_robot_heartbeat,
)
from api.conflation import PERIODS_MS, period_ms
from api.door import Door
from api.hub import FeedHub
from api.limits import may_come_from
from api.websocket_protocol import FleetSocket
from fleet.errors import Unavailable
from fleet.events import LIVE_JOBS, QUEUE_METRICS, ROBOT_STATUS

# The reference imports the bus functions from here.
__all__ = [
    "broadcast_job_update",
    "broadcast_queue_metrics",
    "broadcast_robot_status",
    "on_job_status_changed",
    "on_queue_depth_changed",
    "on_robot_heartbeat",
    "routes",
]

Endpoint = Callable[[WebSocket, Door], Awaitable[None]]

_ENVIRONMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


async def admit(websocket: WebSocket, door: Door) -> tuple[FleetSocket, Principal] | None:
    """The socket, accepted, and who opened it. None for those who are refused: 403 for a foreign page, before
    accept; 4001 after it for a bad token, since a close before accept reaches a client as HTTP 403 without a
    code, and its "do not reconnect on 4001" would never fire. Raises TooMany, before accept."""
    if not may_come_from(websocket, door.settings.allowed_origins):
        await websocket.close()
        return None
    try:
        principal = await door.principal(websocket)
        socket = door.let_in(websocket, principal)
    except (Unauthenticated, Unavailable) as error:
        await websocket.accept()
        await websocket.close(4001 if isinstance(error, Unauthenticated) else 1013, error.detail)
        return None
    await websocket.accept()
    return socket, principal


async def _watch(websocket: WebSocket, door: Door, name: str) -> None:
    admitted = await admit(websocket, door)
    if admitted is None:
        return
    socket, _ = admitted
    fault = _version_fault(websocket)
    if fault:
        socket.close_with(1008, fault)
    else:
        _join(websocket, socket, door.hub.feeds[name])


def _version_fault(websocket: WebSocket) -> str:
    """What is wrong with `v` and `since`, or ""."""
    query = websocket.query_params
    if query.getlist("v") not in ([], ["2"]):
        return "v must be 2, or be left out"
    return "since must come once" if len(query.getlist("since")) > 1 else ""


def _join(websocket: WebSocket, socket: FleetSocket, feed: FeedHub) -> None:
    """Who names a place wants numbered messages, with or without `v`: plain ones have none."""
    query = websocket.query_params
    if "v" in query or "since" in query:
        feed.add_numbered(socket, query.get("since"))
    else:
        feed.add(socket)


async def live_jobs(websocket: WebSocket, door: Door) -> None:
    await _watch(websocket, door, LIVE_JOBS)


async def robot_status(websocket: WebSocket, door: Door) -> None:
    if "conflate" not in websocket.query_params:
        await _watch(websocket, door, ROBOT_STATUS)
        return
    admitted = await admit(websocket, door)
    if admitted is None:
        return
    socket, _ = admitted
    period, fault = _conflation(websocket)
    if fault:
        socket.close_with(1008, fault)
    else:
        door.hub.feeds[ROBOT_STATUS].add_conflated(socket, period)


def _conflation(websocket: WebSocket) -> tuple[int, str]:
    """(period in ms, ""), or (0, what is wrong)."""
    query = websocket.query_params
    if "v" in query or "since" in query:
        return 0, "conflate goes without v and since: what is left out has no number"
    asked = query.getlist("conflate")
    period = period_ms(asked[0]) if len(asked) == 1 else None
    if period is None:
        return 0, f"conflate must be a number of milliseconds from {PERIODS_MS[0]} to {PERIODS_MS[-1]}"
    return period, ""


async def queue_metrics(websocket: WebSocket, door: Door) -> None:
    await _watch(websocket, door, QUEUE_METRICS)


async def metrics_stream(websocket: WebSocket, door: Door) -> None:
    admitted = await admit(websocket, door)
    if admitted is None:
        return
    socket, _ = admitted
    interval_s, environment, fault = _stream_parameters(websocket)
    if fault:
        socket.close_with(1008, fault)
    else:
        door.wheel.add(socket, interval_s, environment)


def _stream_parameters(websocket: WebSocket) -> tuple[int, str, str]:
    """(interval in seconds, environment, ""), or (0, "", what is wrong, naming the parameter)."""
    intervals = websocket.query_params.getlist("interval") or ["5"]
    text = intervals[0]
    if len(intervals) != 1 or not re.fullmatch(r"[0-9]{1,2}", text, re.ASCII) or not 1 <= int(text) <= 60:
        return 0, "", "interval must be a whole number from 1 to 60"
    environments = websocket.query_params.getlist("environment") or ["development"]
    if len(environments) != 1 or not _ENVIRONMENT.fullmatch(environments[0]):
        return 0, "", "environment must match [A-Za-z0-9_.-]{1,64}"
    for name in ("v", "since"):
        if name in websocket.query_params:
            return 0, "", f"{name} is for streams of events: of snapshots only the newest is of use"
    return int(text), environments[0], ""


routes: dict[str, Endpoint] = {
    "/api/v1/ws/live-jobs": live_jobs,
    "/api/v1/ws/robot-status": robot_status,
    "/api/v1/ws/queue-metrics": queue_metrics,
    "/api/v1/ws/metrics/stream": metrics_stream,
}
