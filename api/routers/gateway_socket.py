"""ws/robot-gateway: many robots over one socket, as a site controller has them."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec
from starlette.websockets import WebSocket

from api.door import Door
from api.limits import InboundRate, Verdict
from api.robot_session import RobotSession
from api.routers.robot_socket import read_message
from api.routers.robots import checked_id
from api.routers.websockets import admit
from api.websocket_protocol import FleetSocket, text_frame
from fleet.errors import FleetError, Forbidden, PeerFault
from fleet.messages import Error, ToRobot

MAX_ROBOTS = 20_000
MAX_UNANSWERED = 20_000
MAX_UNSENT_BYTES = 8 * 1024 * 1024
AT_ONCE = 200  # messages, before others have their turn
_encode = msgspec.json.Encoder().encode
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Addressed(msgspec.Struct):
    robot_id: str = ""


_address = msgspec.json.Decoder(_Addressed).decode


class _Line:
    """Of one robot. `unanswered`: messages, as long as its session lasts."""

    __slots__ = ("_gateway", "_robot_id", "unanswered")

    def __init__(self, gateway: Gateway, robot_id: str) -> None:
        self.unanswered = 0
        self._gateway = gateway
        self._robot_id = robot_id

    def say(self, message: ToRobot) -> None:
        self._gateway.say(self._robot_id, message)

    def asked(self) -> None:
        self.unanswered += 1
        self._gateway.asked()

    def answered(self) -> None:
        self.unanswered -= 1
        self._gateway.answered()

    def refused(self, error: FleetError) -> None:
        self._gateway.end_session(
            self._robot_id, self.unanswered, Error(code=error.code, detail=error.detail)
        )

    def superseded(self) -> None:
        detail = "a newer connection of this robot took over"
        self._gateway.end_session(self._robot_id, self.unanswered, Error(code="superseded", detail=detail))


class Gateway:
    """A robot is here from the first message that names it, until the socket ends or it appears elsewhere.
    Bounds: `MAX_ROBOTS`; past `MAX_UNANSWERED` messages the socket is not read; a frame is heard in parts."""

    def __init__(self, door: Door, socket: FleetSocket) -> None:
        self._door = door
        self._socket = socket
        self._sessions: dict[str, RobotSession] = {}
        self._unheard: deque[msgspec.Raw] = deque()
        self._said: list[bytes] = []
        self._unanswered = 0
        self._closed = False
        settings = door.settings
        self._rate = InboundRate(settings.max_gateway_messages_per_s, settings.inbound_patience_s)

    # -- the gateway speaks

    def on_text(self, data: bytes) -> None:
        if data == b"ping":
            if self._keeps_the_rate(1) and not self._socket.blocked:
                self._socket.write(text_frame(b"pong"))
            return
        try:
            messages = _split(data) if data[:1] == b"[" else [msgspec.Raw(data)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.say("", Error(code="bad_message", detail=str(error)[:500]))
            messages = []
        if self._keeps_the_rate(max(1, len(messages))):
            busy = bool(self._unheard)
            self._unheard.extend(messages)
            if not busy:
                self._hear_some()

    def on_binary(self, data: bytes) -> None:
        self._socket.close_with(1003, "this socket takes text only")

    def on_control(self) -> None:
        self._keeps_the_rate(1)

    def on_writable(self) -> None:
        pass

    def _keeps_the_rate(self, messages: int) -> bool:
        """What a robot says is never ignored, so that too much of it can only end the socket."""
        if self._rate.judge(asyncio.get_running_loop().time(), messages) is not Verdict.CLOSE:
            return True
        self._socket.close_with(1008, "too many messages a second")
        return False

    def _hear_some(self) -> None:
        """A mebibyte holds ten thousand messages: others must not wait for all of them."""
        if self._closed:
            return
        unheard = self._unheard
        for _ in range(min(AT_ONCE, len(unheard))):
            self._hear(unheard.popleft())
        if unheard:
            asyncio.get_running_loop().call_soon(self._hear_some)
        self._read_or_not()

    def _hear(self, data: msgspec.Raw) -> None:
        try:
            robot_id = checked_id(_address(data).robot_id)
        except (PeerFault, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            detail = error.detail if isinstance(error, PeerFault) else str(error)
            self.say("", Error(code="bad_message", detail=detail[:500]))
            return
        message = read_message(data)
        if isinstance(message, Error):
            self.say(robot_id, message)
        elif (session := self._session(robot_id)) is None:
            detail = f"a gateway speaks for {MAX_ROBOTS} robots at most: use another"
            self.say(robot_id, Error(id=message.id, code="too_many_robots", detail=detail))
        else:
            session.hear(message)

    def _session(self, robot_id: str) -> RobotSession | None:
        session = self._sessions.get(robot_id)
        if session is None and len(self._sessions) < MAX_ROBOTS:
            session = self._sessions[robot_id] = RobotSession(self._door, _Line(self, robot_id), robot_id)
            session.open()
        return session

    def on_end(self) -> None:
        self._closed = True
        self._unheard.clear()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    # -- its robots' sessions speak

    def say(self, robot_id: str, message: ToRobot) -> None:
        """With what others are told in the same turn."""
        if self._closed:
            return
        if not self._said:
            asyncio.get_running_loop().call_soon(self._tell)
        said = _encode(message)
        if robot_id:
            said = b'{"robot_id":%s,%s' % (_encode(robot_id), said[1:])
        self._said.append(text_frame(said))

    def _tell(self) -> None:
        said, self._said = self._said, []
        if self._closed:
            return
        if self._socket.unsent_bytes() > MAX_UNSENT_BYTES:
            self._socket.abort()
        else:
            self._socket.write(b"".join(said))

    def asked(self) -> None:
        self._unanswered += 1
        if self._unanswered == MAX_UNANSWERED:
            self._read_or_not()

    def answered(self) -> None:
        self._unanswered -= 1
        if self._unanswered == MAX_UNANSWERED - 1:
            self._read_or_not()

    def _read_or_not(self) -> None:
        if self._closed:
            return
        if self._unheard or self._unanswered >= MAX_UNANSWERED:
            self._socket.transport.pause_reading()
        else:
            self._socket.transport.resume_reading()

    def end_session(self, robot_id: str, unanswered: int, error: Error) -> None:
        """What it had asked is answered to nobody: it must not hold the socket for ever."""
        session = self._sessions.pop(robot_id, None)
        if session is not None:
            session.close()
            self._unanswered -= unanswered
            self._read_or_not()
            self.say(robot_id, error)


async def gateway_socket(websocket: WebSocket, door: Door) -> None:
    admitted = await admit(websocket, door)
    if admitted is None:
        return
    socket, principal = admitted
    try:
        principal.need("operator")
    except Forbidden as error:
        socket.close_with(1008, error.detail)
    else:
        socket.listener = Gateway(door, socket)
