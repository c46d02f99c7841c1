"""The ASGI application of one door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.door import Door
from api.openapi import describe
from api.ports import Fleet
from api.problems import on_disconnect, on_fleet_error, on_http_error
from api.routers import jobs, keys, metrics, robot_socket, robots, websockets
from api.settings import Settings
from fleet.errors import FleetError

ROUTERS = (jobs.jobs, robots.robots, keys.keys, metrics.metrics, metrics.health)


def make_app(fleet: Fleet, settings: Settings, version: str = "") -> FastAPI:
    """Starts its door with the server and stops it with the server; the fleet is its caller's."""
    door = Door(fleet, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await door.start()
        yield
        await door.stop()

    app = FastAPI(
        title="fleetcast", version=version, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.door = door
    app.add_exception_handler(FleetError, on_fleet_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.router.routes += [*websockets.routes, *robot_socket.routes]
    for router in ROUTERS:
        app.router.routes += router.routes
    app.state.description = cache(lambda: msgspec.json.encode(describe(app)))
    return app
