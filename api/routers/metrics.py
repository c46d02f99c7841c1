"""Counts of the fleet and of this door's sockets; health."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import answer
from api.door import Door
from fleet.events import METRICS


async def fleet(request: Request) -> Response:
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    metrics = await door.fleet.metrics()
    robots = metrics.robots
    return answer(
        {
            "total_robots": robots.total,
            "active_robots": robots.active,
            "idle_robots": robots.idle,
            "busy_robots": robots.busy,
            "offline_robots": robots.offline,
            "active_jobs": metrics.jobs.running,
            "queue_depth": metrics.queue.depth,
        }
    )


async def connections(request: Request) -> Response:
    """Of this process: open sockets per endpoint, metrics watchers per `environment`, events and bytes sent
    to watchers, by how many bytes the slowest is behind, watchers that were dropped for being slow, and
    messages of watchers that nobody asked for."""
    door: Door = request.app.state.door
    (await door.principal(request)).need("viewer")
    feeds = door.hub.feeds
    sockets = {name: len(feed) for name, feed in feeds.items()}
    sockets |= {METRICS: len(door.wheel), "robots": len(door.sessions)}
    return answer(
        {
            "connections": sockets,
            "environments": door.wheel.environments(),
            "sent_events": sum(feed.sent_events for feed in feeds.values()),
            "sent_bytes": sum(feed.sent_bytes for feed in feeds.values()),
            "lag_bytes": max(feed.lag_bytes() for feed in feeds.values()),
            "slow_disconnects": sum(feed.slow_disconnects for feed in feeds.values()),
            "ignored_messages": sum(feed.ignored_messages for feed in feeds.values()),
        }
    )


async def live(request: Request) -> Response:
    return answer({"status": "live"})


async def ready(request: Request) -> Response:
    door: Door = request.app.state.door
    return answer({"status": door.state}, 200 if door.state == "ready" else 503)


routes = [
    Route("/api/v1/metrics/fleet", fleet),
    Route("/api/v1/metrics/connections", connections),
    Route("/api/v1/health/live", live),
    Route("/api/v1/health/ready", ready),
]
