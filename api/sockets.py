"""Which WebSocket goes where: dispatched before the HTTP stack, whose layers would each keep a frame alive
and whose router and dependencies are for requests."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from api.door import Door, GoingAway
from api.envelope import request_id_of, sealed
from api.problems import TooMany
from api.routers import websockets
from api.routers.gateway_socket import gateway_socket
from api.routers.robot_socket import robot_socket
from fleet.errors import NotFound

ROBOT = "/api/v1/ws/robot/"
GATEWAY = "/api/v1/ws/robot-gateway"


async def serve_socket(door: Door, scope: Scope, receive: Receive, send: Send) -> None:
    """Ends with the handshake. Before it, 429 for too many, 503 once the server goes away, 404 for a path
    that is no stream: a page's origin and a token are looked at after that, since looking costs as well."""
    websocket = WebSocket(scope, receive, send)
    with suppress(WebSocketDisconnect):  # it left while it was looked at
        try:
            door.knock(websocket)
            await _dispatch(websocket, door, scope["path"])
        except (TooMany, NotFound, GoingAway) as error:
            await websocket.send_denial_response(sealed(error, request_id_of(websocket.headers.raw)))


async def _dispatch(websocket: WebSocket, door: Door, path: str) -> None:
    endpoint = websockets.routes.get(path)
    if endpoint is not None:
        await endpoint(websocket, door)
    elif path == GATEWAY:
        await gateway_socket(websocket, door)
    elif path.startswith(ROBOT):
        await robot_socket(websocket, door, path.removeprefix(ROBOT))
    else:
        raise NotFound(f"no stream at {path[:200]}")
