"""Counts of the fleet and of this door's sockets; health."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.bodies import answer
from api.door import Door, State
from api.openapi import operation, router
from fleet.events import METRICS

metrics = router("metrics", "/metrics")
health = router("health")


class FleetCounts(msgspec.Struct, frozen=True):
    total_robots: int
    active_robots: int
    idle_robots: int
    busy_robots: int
    offline_robots: int
    active_jobs: int
    queue_depth: int
    stuck_jobs: int


@metrics.get(
    "/fleet", summary="The fleet in numbers", openapi_extra=operation({200: FleetCounts}, refused=(503,))
)
async def fleet(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    robots, jobs = await door.fleet.counts()
    return answer(
        FleetCounts(
            total_robots=robots.total,
            active_robots=robots.active,
            idle_robots=robots.idle,
            busy_robots=robots.busy,
            offline_robots=robots.offline,
            active_jobs=jobs.running,
            queue_depth=jobs.depth,
            stuck_jobs=jobs.stuck,
        )
    )


class Connections(msgspec.Struct, frozen=True):
    connections: dict[str, int]
    environments: dict[str, int]
    sent_events: int
    sent_bytes: int
    lag_bytes: int
    slow_disconnects: int
    ignored_messages: int
    resumed: int
    gaps: int
    snapshots: int


@metrics.get(
    "/connections", summary="The sockets of this server process", openapi_extra=operation({200: Connections})
)
async def connections(request: Request) -> Response:
    """Of this process: open sockets per endpoint, metrics watchers per `environment`, events and bytes sent
    to watchers, by how many bytes the slowest is behind, watchers that were dropped for being slow,
    messages of watchers that nobody asked for, watchers that continued where they had been, holes in what
    this process heard of the fleet, and snapshots of the state that it made for who had missed something."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    feeds, fanouts = door.hub.feeds, door.hub.fanouts
    sockets = {name: len(feed) for name, feed in feeds.items()}
    sockets |= {METRICS: len(door.wheel), "robots": len(door.sessions)}
    return answer(
        Connections(
            sockets,
            door.wheel.environments(),
            sent_events=sum(fanout.sent_events for fanout in fanouts),
            sent_bytes=sum(fanout.sent_bytes for fanout in fanouts),
            lag_bytes=max(fanout.lag_bytes() for fanout in fanouts),
            slow_disconnects=sum(fanout.slow_disconnects for fanout in fanouts),
            ignored_messages=sum(fanout.ignored_messages for fanout in fanouts),
            resumed=sum(feed.resumed for feed in feeds.values()),
            gaps=sum(feed.gaps for feed in feeds.values()),
            snapshots=sum(feed.recovery.snapshots for feed in feeds.values()),
        )
    )


class Health(msgspec.Struct, frozen=True):
    status: Literal["live"] | State


@health.get(
    "/health/live", summary="Whether this process answers", openapi_extra=operation({200: Health}, role=None)
)
async def live(request: Request) -> Response:
    return answer(Health("live"))


@health.get(
    "/health/ready",
    summary="Whether this process takes traffic",
    openapi_extra=operation({200: Health, 503: Health}, role=None),
)
async def ready(request: Request) -> Response:
    """503 while the server drains, has no keys to check tokens with, or gets no answer from the fleet's job
    store or registry; `fleet_crash_loop` when those begin anew again and again."""
    door: Door = request.app.state.door
    return answer(Health(door.state), 200 if door.state == "ready" else 503)


@health.get(
    "/openapi.json", summary="This description", openapi_extra=operation({200: dict[str, Any]}, role=None)
)
async def description(request: Request) -> Response:
    return Response(request.app.state.description(), media_type="application/json")
