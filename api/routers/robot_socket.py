"""ws/robot/{robot_id}: a robot's own socket."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from starlette.websockets import WebSocket

from api.door import Door
from api.limits import InboundRate, Verdict
from api.problems import BadRequest
from api.routers.robots import checked_id
from api.routers.websockets import admit
from api.strict_json import check
from api.websocket_protocol import FleetSocket, text_frame
from fleet.errors import FleetError, Forbidden, Misuse, PeerFault
from fleet.job import JobEvent
from fleet.messages import (
    Ack,
    Answer,
    Beat,
    CancelJob,
    ClaimJobs,
    CloseSession,
    Complete,
    Drain,
    Error,
    Fail,
    Heartbeat,
    HeartbeatAnswer,
    Obeyed,
    OpenSession,
    Progress,
    Register,
    RegisterRobot,
    Release,
    Report,
    Resume,
    RobotMessage,
    RobotSpec,
    Start,
    ToRobot,
    Welcome,
    decode_robot_message,
    granted_job,
)
from fleet.robot import Robot

MAX_UNANSWERED = 64
MAX_UNSENT_BYTES = 1024 * 1024
_encode = msgspec.json.Encoder().encode


class _Numbered(msgspec.Struct):
    id: str | int | None = None


_decode_id = msgspec.json.Decoder(_Numbered).decode


class RobotSession:
    """One socket of one robot. Every message is handled where it arrives; answers come by callback.
    Bound: past 64 unanswered messages the socket is not read."""

    def __init__(self, door: Door, socket: FleetSocket, robot_id: str) -> None:
        self.robot_id = robot_id
        self.session = secrets.token_hex(8)
        self._door = door
        self._fleet = door.fleet
        self._socket = socket
        self._claims: dict[str, asyncio.Future[Answer]] = {}
        self._told: set[str] = set()
        self._drained = False
        self._heartbeat_ms = 0
        self._early: list[RobotMessage] | None = []  # until the registry knows this socket
        self._unanswered = 0
        settings = door.settings
        self._rate = InboundRate(settings.max_robot_messages_per_s, settings.inbound_patience_s)
        self._closed = False

    # -- the robot speaks

    def on_text(self, data: bytes) -> None:
        if not self._keeps_the_rate():
            return
        if data == b"ping":
            if not self._socket.blocked:  # a robot that does not read gets no answers to keep for it
                self._socket.write(text_frame(b"pong"))
            return
        try:
            message = decode_robot_message(data)
            if isinstance(message, Complete):
                check(data)  # others read this result later, and must read what the robot wrote
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadRequest) as error:
            self._say(Error(id=_id_of(data), code="bad_message", detail=str(error)[:500]))
            return
        if self._early is None:
            self._hear(message)
        else:
            self._early.append(message)
            if len(self._early) == MAX_UNANSWERED:
                self._socket.transport.pause_reading()

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

    def _hear(self, message: RobotMessage) -> None:
        match message:
            case Heartbeat():
                self._beat(message)
            case ClaimJobs():
                self._claim(message)
            case Register():
                fields = {name: getattr(message, name) for name in Register.__struct_fields__ if name != "id"}
                spec = RobotSpec(robot_id=self.robot_id, **fields)
                self._ask(
                    message.id, self._fleet.administer(RegisterRobot(spec, self.session)), self._on_registered
                )
            case _:
                self._ask(message.id, self._fleet.execute(report_of(message, self.robot_id)))

    def _beat(self, message: Heartbeat) -> None:
        beat = Beat(
            self.robot_id,
            message.status,
            message.cpu_percent,
            message.memory_mb,
            [job.job_id for job in message.jobs],
            self.session,
        )
        self._ask(message.id, self._fleet.heartbeat(beat, message.jobs), self._on_beat)

    def _claim(self, message: ClaimJobs) -> None:
        future = self._fleet.claim(self.robot_id, message.request_id, message.limit, message.wait_ms)
        self._claims[message.request_id] = future
        future.add_done_callback(partial(self._claim_ended, message.request_id))
        self._ask(message.id, future, partial(self._on_granted, message))

    def _claim_ended(self, request_id: str, future: asyncio.Future[Answer]) -> None:
        if self._claims.get(request_id) is future:
            del self._claims[request_id]

    def _ask(
        self,
        reply_to: str | int | None,
        future: asyncio.Future[Any],
        then: Callable[[Any], ToRobot | None] | None = None,
    ) -> None:
        self._unanswered += 1
        if self._unanswered == MAX_UNANSWERED:
            self._socket.transport.pause_reading()
        future.add_done_callback(partial(self._answer, reply_to, then))

    # -- the fleet answers

    def _answer(
        self,
        reply_to: str | int | None,
        then: Callable[[Any], ToRobot | None] | None,
        future: asyncio.Future[Any],
    ) -> None:
        self._unanswered -= 1
        if self._unanswered == MAX_UNANSWERED - 1 and not self._closed:
            self._socket.transport.resume_reading()
        if future.cancelled():
            return
        error = future.exception()
        if isinstance(error, FleetError):
            self._say(Error(id=reply_to, code=error.code, detail=error.detail))
        elif error is not None:
            self._say(Error(id=reply_to, code="unavailable", detail="the fleet failed; try again"))
        else:
            answer = then(future.result()) if then else None
            if isinstance(answer, Error):
                answer = msgspec.structs.replace(answer, id=reply_to)
            if answer is None and reply_to is not None:
                answer = Ack(id=reply_to)
            if answer is not None:
                self._say(answer)

    def _on_beat(self, answer: HeartbeatAnswer) -> ToRobot | None:
        if answer.refused == "superseded":
            self.supersede()
        elif answer.refused:
            return Error(code=answer.refused, detail=f"{self.robot_id} is not registered: register first")
        for job_id in answer.cancel:
            self.cancel(job_id)
        self._told.intersection_update(answer.cancel)
        if not answer.refused:
            self._tell_drain(answer.drain)
            self._tell_interval(answer.next_heartbeat_ms)
        return None

    def _tell_drain(self, drained: bool) -> None:
        if drained != self._drained:
            self._drained = drained
            self._say(Drain() if drained else Resume())

    def _on_registered(self, robot: Robot) -> None:
        self._tell_interval(robot.heartbeat_interval_ms)

    def _tell_interval(self, heartbeat_ms: int) -> None:
        if heartbeat_ms != self._heartbeat_ms:
            self._heartbeat_ms = heartbeat_ms
            self._say(Welcome(heartbeat_ms=heartbeat_ms))

    def _on_granted(self, message: ClaimJobs, answer: Answer) -> ToRobot | None:
        self._told.difference_update(grant.job.job_id for grant in answer.grants)
        jobs = [granted_job(grant) for grant in answer.grants]
        return Ack(id=message.request_id if message.id is None else message.id, jobs=jobs)

    # -- the server speaks

    def cancel(self, job_id: str) -> None:
        if job_id not in self._told:
            self._told.add(job_id)
            self._say(CancelJob(job_id=job_id))

    def welcome(self, heartbeat_ms: int) -> None:
        """What the robot said before goes on its way now: earlier, it might have come to the registry
        before this session did, and been taken for one of the past."""
        self._tell_interval(heartbeat_ms)
        early, self._early = self._early or [], None
        if len(early) >= MAX_UNANSWERED and not self._closed:
            self._socket.transport.resume_reading()
        for message in early:
            self._hear(message)

    def supersede(self) -> None:
        self._socket.close_with(4409, "a newer connection of this robot took over")

    def _say(self, message: ToRobot) -> None:
        if self._socket.unsent_bytes() > MAX_UNSENT_BYTES:
            self._socket.abort()
        elif not self._closed:
            self._socket.write(text_frame(_encode(message)))

    def on_end(self) -> None:
        self._closed = True
        if self._door.sessions.get(self.robot_id) is self:
            del self._door.sessions[self.robot_id]
        for request_id, claim in tuple(self._claims.items()):
            self._fleet.withdraw(self.robot_id, request_id, claim)
        self._fleet.administer(CloseSession(self.robot_id, self.session))


def _id_of(data: bytes) -> str | int | None:
    """Of a message that makes no sense otherwise, so that its sender knows which it was."""
    try:
        return _decode_id(data).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def report_of(message: RobotMessage, robot_id: str) -> Report:
    """A robot's word on one of its jobs, as the job store takes it."""
    match message:
        case Start():
            return Report(JobEvent.START, message.job_id, robot_id, message.token)
        case Progress():
            return Report(
                JobEvent.PROGRESS,
                message.job_id,
                robot_id,
                message.token,
                progress=message.progress,
                current_node=message.current_node,
                message=message.message,
            )
        case Complete():
            return Report(JobEvent.COMPLETE, message.job_id, robot_id, message.token, result=message.result)
        case Fail():
            return Report(
                JobEvent.FAIL,
                message.job_id,
                robot_id,
                message.token,
                error=message.error,
                retryable=message.retryable,
            )
        case Release():
            return Report(JobEvent.RELEASE, message.job_id, robot_id, message.token)
        case Obeyed():
            return Report(JobEvent.CANCELLED, message.job_id, robot_id, message.token)
    raise Misuse(f"{type(message).__name__} is not about a job")


async def robot_socket(websocket: WebSocket, door: Door, robot_id: str) -> None:
    admitted = await admit(websocket, door)
    if admitted is None:
        return
    socket, principal = admitted
    try:
        principal.act_as(checked_id(robot_id))
    except (PeerFault, Forbidden) as error:
        socket.close_with(1008, error.detail)
    else:
        await _serve(door, socket, RobotSession(door, socket, robot_id))


async def _serve(door: Door, socket: FleetSocket, session: RobotSession) -> None:
    """The newest socket of a robot wins. It listens from the first instant: a robot may speak before
    it was welcomed."""
    older = door.sessions.get(session.robot_id)
    if older is not None:
        older.supersede()
    door.sessions[session.robot_id] = session
    socket.listener = session
    try:
        opened = await door.fleet.administer(OpenSession(session.robot_id, session.session))
        session.welcome(opened.heartbeat_ms)
    except FleetError as error:
        socket.close_with(1013, error.detail[:120])
