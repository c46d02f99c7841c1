"""The four streams of the reference."""

from __future__ import annotations

import re
import time

import msgspec
from starlette.routing import WebSocketRoute
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
from api.door import Door
from api.hub import FeedHub
from api.limits import may_come_from
from api.websocket_protocol import EXTENSION, FleetSocket, text_frame
from fleet.events import LIVE_JOBS, METRICS, QUEUE_METRICS, ROBOT_STATUS, QueueDepthChanged, encode
from fleet.wall_time import rfc3339

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

_ENVIRONMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


async def admit(websocket: WebSocket, door: Door) -> tuple[FleetSocket, Principal] | None:
    """Accepts, then closes 4001 if the token is bad: a close before accept reaches a client as HTTP
    403 without a code, and its "do not reconnect on 4001" would never fire."""
    if not may_come_from(websocket, door.settings.allowed_origins):
        await websocket.close()
        return None
    await websocket.accept()
    try:
        principal = await door.principal(websocket)
    except Unauthenticated as error:
        await websocket.close(4001, error.detail)
        return None
    socket: FleetSocket = websocket.scope["extensions"][EXTENSION]
    door.credentials.watch(socket, principal)  # no await since the check: a revocation finds the socket
    return socket, principal


async def until_closed(websocket: WebSocket) -> None:
    """What arrives goes to the socket's listener; this task only waits for the end."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _watch(websocket: WebSocket, feed: FeedHub, depth_first: bool = False) -> None:
    door: Door = websocket.app.state.door
    admitted = await admit(websocket, door)
    if admitted is None:
        return
    socket, _ = admitted
    watcher = feed.add(socket)
    if depth_first:
        socket.write(text_frame(_depth_now(feed)))
    try:
        await until_closed(websocket)
    finally:
        feed.remove(watcher)
        door.credentials.forget(socket)


async def live_jobs(websocket: WebSocket) -> None:
    await _watch(websocket, websocket.app.state.door.hub.feeds[LIVE_JOBS])


async def robot_status(websocket: WebSocket) -> None:
    await _watch(websocket, websocket.app.state.door.hub.feeds[ROBOT_STATUS])


async def queue_metrics(websocket: WebSocket) -> None:
    """The current depth first, before any change."""
    feed: FeedHub = websocket.app.state.door.hub.feeds[QUEUE_METRICS]
    await _watch(websocket, feed, depth_first=True)


def _depth_now(feed: FeedHub) -> bytes:
    depth = msgspec.json.decode(feed.current or b'{"depth":0}')["depth"]
    return encode(QueueDepthChanged(depth, rfc3339(time.time_ns())))


async def metrics_stream(websocket: WebSocket) -> None:
    door: Door = websocket.app.state.door
    admitted = await admit(websocket, door)
    if admitted is None:
        return
    socket, _ = admitted
    try:
        interval_s, environment, fault = _stream_parameters(websocket)
        if fault:
            await websocket.close(1008, fault)
            return
        watcher = door.hub.feeds[METRICS].listen(socket)
        door.wheel.add(watcher, interval_s, environment)
        try:
            await until_closed(websocket)
        finally:
            door.wheel.remove(watcher)
    finally:
        door.credentials.forget(socket)


def _stream_parameters(websocket: WebSocket) -> tuple[int, str, str]:
    """(interval in seconds, environment, ""), or (0, "", what is wrong, naming the parameter)."""
    intervals = websocket.query_params.getlist("interval") or ["5"]
    text = intervals[0]
    if len(intervals) != 1 or not re.fullmatch(r"[0-9]{1,2}", text, re.ASCII) or not 1 <= int(text) <= 60:
        return 0, "", "interval must be a whole number from 1 to 60"
    environments = websocket.query_params.getlist("environment") or ["development"]
    if len(environments) != 1 or not _ENVIRONMENT.fullmatch(environments[0]):
        return 0, "", "environment must match [A-Za-z0-9_.-]{1,64}"
    return int(text), environments[0], ""


routes = [
    WebSocketRoute("/api/v1/ws/live-jobs", live_jobs),
    WebSocketRoute("/api/v1/ws/robot-status", robot_status),
    WebSocketRoute("/api/v1/ws/queue-metrics", queue_metrics),
    WebSocketRoute("/api/v1/ws/metrics/stream", metrics_stream),
]
