"""The ASGI application of one door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.door import Door
from api.envelope import Envelope, LastResort
from api.idempotency import HEADER, REPLAYED
from api.openapi import describe
from api.ports import Fleet
from api.problems import on_disconnect, on_fleet_error, on_http_error
from api.routers import dead_letters, jobs, keys, metrics, reports, robots
from api.settings import Settings
from api.sockets import serve_socket
from fleet.errors import FleetError

ROUTERS = (
    jobs.jobs,
    dead_letters.dead_letters,
    reports.reports,
    robots.robots,
    keys.keys,
    metrics.metrics,
    metrics.health,
)


class DoorApp(FastAPI):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await serve_socket(self.state.door, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def make_app(fleet: Fleet, settings: Settings, version: str = "") -> FastAPI:
    """Starts its door with the server and stops it with the server; the fleet is its caller's."""
    door = Door(fleet, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await door.start()
        yield
        await door.stop()

    app = DoorApp(
        title="fleetcast",
        version=version,
        lifespan=lifespan,
        redirect_slashes=False,  # a Location would repeat the `?token=` of the request
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.door = door
    app.add_exception_handler(FleetError, on_fleet_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    _wrap(app, settings)
    for router in ROUTERS:
        app.router.routes += router.routes
    app.state.description = cache(lambda: msgspec.json.encode(describe(app)))
    return app


def _wrap(app: FastAPI, settings: Settings) -> None:
    """From the inside out."""
    app.add_middleware(LastResort)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Api-Key", "X-Request-Id", HEADER],
            expose_headers=["X-Request-Id", "Retry-After", REPLAYED],
        )
    app.add_middleware(Envelope)
