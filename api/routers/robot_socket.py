"""ws/robot/{robot_id}: a robot's own socket."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.websockets import WebSocket

from api.door import Door
from api.limits import InboundRate, Verdict
from api.problems import BadRequest
from api.robot_session import RobotSession
from api.routers.robots import checked_id
from api.routers.websockets import admit
from api.strict_json import check
from api.websocket_protocol import FleetSocket, text_frame
from fleet.errors import FleetError, Forbidden, PeerFault
from fleet.messages import Complete, Error, RobotMessage, ToRobot, decode_robot_message

MAX_UNANSWERED = 64
MAX_UNSENT_BYTES = 1024 * 1024
_encode = msgspec.json.Encoder().encode


class _Numbered(msgspec.Struct):
    id: str | int | None = None


_decode_id = msgspec.json.Decoder(_Numbered).decode


class RobotSocket:
    """The line of one robot, and what hears its socket. Bound: past 64 unanswered messages the socket is not
    read."""

    def __init__(self, door: Door, socket: FleetSocket, robot_id: str) -> None:
        self.session = RobotSession(door, self, robot_id)
        self._socket = socket
        self._unanswered = 0
        self._closed = False
        settings = door.settings
        self._rate = InboundRate(settings.max_robot_messages_per_s, settings.inbound_patience_s)

    # -- the robot speaks

    def on_text(self, data: bytes) -> None:
        if not self._keeps_the_rate():
            return
        if data == b"ping":
            if not self._socket.blocked:  # a robot that does not read gets no answers to keep for it
                self._socket.write(text_frame(b"pong"))
            return
        message = read_message(data)
        if isinstance(message, Error):
            self.say(message)
        else:
            self.session.hear(message)

    def on_binary(self, data: bytes) -> None:
        self._socket.close_with(1003, "this socket takes text only")

    def on_control(self) -> None:
        self._keeps_the_rate()

    def _keeps_the_rate(self) -> bool:
        """What a robot says is never ignored, so that too much of it can only end its socket."""
        if self._rate.judge(asyncio.get_running_loop().time()) is not Verdict.CLOSE:
            return True
        self._socket.close_with(1008, "too many messages a second")
        return False

    def on_writable(self) -> None:
        pass

    def on_end(self) -> None:
        self._closed = True
        self.session.close()

    # -- the session speaks

    def say(self, message: ToRobot) -> None:
        if self._socket.unsent_bytes() > MAX_UNSENT_BYTES:
            self._socket.abort()
        elif not self._closed:
            self._socket.write(text_frame(_encode(message)))

    def asked(self) -> None:
        self._unanswered += 1
        if self._unanswered == MAX_UNANSWERED:
            self._socket.transport.pause_reading()

    def answered(self) -> None:
        self._unanswered -= 1
        if self._unanswered == MAX_UNANSWERED - 1 and not self._closed:
            self._socket.transport.resume_reading()

    def refused(self, error: FleetError) -> None:
        self._socket.close_with(1013, error.detail[:120])

    def superseded(self) -> None:
        self._socket.close_with(4409, "a newer connection of this robot took over")


def read_message(data: bytes | msgspec.Raw) -> RobotMessage | Error:
    """What a robot said, or what to answer it."""
    try:
        message: RobotMessage = decode_robot_message(data)
        if isinstance(message, Complete):
            check(bytes(data))  # others read this result later, and must read what the robot wrote
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadRequest) as error:
        return Error(id=_id_of(data), code="bad_message", detail=str(error)[:500])
    return message


def _id_of(data: bytes | msgspec.Raw) -> str | int | None:
    """Of a message that makes no sense otherwise, so that its sender knows which it was."""
    try:
        return _decode_id(data).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


async def robot_socket(websocket: WebSocket, door: Door, robot_id: str) -> None:
    admitted = await admit(websocket, door)
    if admitted is None:
        return
    socket, principal = admitted
    try:
        principal.act_as(checked_id(robot_id))
    except (PeerFault, Forbidden) as error:
        socket.close_with(1008, error.detail)
        return
    robot = RobotSocket(door, socket, robot_id)
    socket.listener = robot
    robot.session.open()
