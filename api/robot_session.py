"""One robot as a door sees it, over a socket of its own or a gateway's."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from fleet.errors import FleetError
from fleet.messages import (
    Ack,
    Answer,
    Beat,
    CancelJob,
    ClaimJobs,
    CloseSession,
    Drain,
    Error,
    Heartbeat,
    HeartbeatAnswer,
    Opened,
    OpenSession,
    Register,
    RegisterRobot,
    Resume,
    RobotMessage,
    RobotSpec,
    ToRobot,
    Welcome,
    granted_job,
)
from fleet.reports import report_of
from fleet.robot import Robot

if TYPE_CHECKING:
    from api.door import Door

MAX_EARLY = 1_000


class Line(Protocol):
    """The connection of a session."""

    def say(self, message: ToRobot) -> None: ...

    def asked(self) -> None:
        """One message more waits for the fleet."""

    def answered(self) -> None:
        """One less."""

    def refused(self, error: FleetError) -> None:
        """The fleet does not take the session, which is over."""

    def superseded(self) -> None:
        """A newer connection of the robot took over; the session is over."""


class _Gone:
    """Stands where the line was, once there is none: the two would keep each other from being forgotten."""

    def say(self, message: ToRobot) -> None: ...

    def asked(self) -> None: ...

    def answered(self) -> None: ...

    def refused(self, error: FleetError) -> None: ...

    def superseded(self) -> None: ...


_GONE = _Gone()


class RobotSession:
    """Every message is handled where it arrives; answers come by callback. It speaks from the first instant:
    a robot may before it was welcomed. What it says before, and what a new one says while it is being
    registered, is heard after. Bound: `MAX_EARLY` messages at most."""

    __slots__ = (
        "_claims",
        "_closed",
        "_door",
        "_drained",
        "_early",
        "_fleet",
        "_heartbeat_ms",
        "_line",
        "_registered",
        "_told",
        "robot_id",
        "session",
    )

    def __init__(self, door: Door, line: Line, robot_id: str) -> None:
        self.robot_id = robot_id
        self.session = secrets.token_hex(8)
        self._door = door
        self._fleet = door.fleet
        self._line: Line = line
        self._claims: dict[str, Any] = {}
        self._told: set[str] = set()
        self._drained = False
        self._heartbeat_ms = 0
        self._early: list[RobotMessage] | None = []  # until the registry knows this session, and this robot
        self._registered = False
        self._closed = False

    def open(self) -> None:
        """The newest session of a robot wins."""
        older = self._door.sessions.get(self.robot_id)
        if older is not None:
            older.supersede()
        self._door.sessions[self.robot_id] = self
        opening = self._fleet.administer(OpenSession(self.robot_id, self.session))
        opening.add_done_callback(self._on_opened)

    def _on_opened(self, opening: Any) -> None:
        """What the robot said before goes on its way now: earlier, it might have come to the registry before
        this session did, and been taken for one of the past."""
        if self._closed or opening.cancelled():
            return
        error = opening.exception()
        if error is not None:
            self._line.refused(error)
            return
        opened: Opened = opening.result()
        self._tell_interval(opened.heartbeat_ms)
        self._registered = opened.registered
        self._hear_early()

    def _hear_early(self) -> None:
        early, self._early = self._early or [], None
        for place, message in enumerate(early):
            if self._early is not None:
                self._early += early[place:]
                return
            self._line.answered()
            self._hear(message)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._line = _GONE
        if self._door.sessions.get(self.robot_id) is self:
            del self._door.sessions[self.robot_id]
        for request_id, claim in tuple(self._claims.items()):
            self._fleet.withdraw(self.robot_id, request_id, claim)
        self._fleet.administer(CloseSession(self.robot_id, self.session))

    def supersede(self) -> None:
        self._line.superseded()

    # -- the robot speaks

    def hear(self, message: RobotMessage) -> None:
        if self._early is None:
            self._hear(message)
        elif len(self._early) < MAX_EARLY:
            self._early.append(message)
            self._line.asked()
        else:
            self._say(Error(id=message.id, code="busy", detail="this robot is not known yet: wait for it"))

    def _hear(self, message: RobotMessage) -> None:
        match message:
            case Heartbeat():
                self._beat(message)
            case ClaimJobs():
                self._claim(message)
            case Register():
                fields = {name: getattr(message, name) for name in Register.__struct_fields__ if name != "id"}
                spec = RobotSpec(robot_id=self.robot_id, **fields)
                future = self._fleet.administer(RegisterRobot(spec, self.session))
                self._ask(message.id, future, self._on_registered)
                if not self._registered:
                    # A claim goes another way, and would find nobody of this name.
                    self._early = []
                    future.add_done_callback(self._on_known)
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

    def _claim_ended(self, request_id: str, future: Any) -> None:
        if self._claims.get(request_id) is future:
            del self._claims[request_id]

    def _ask(
        self,
        reply_to: str | int | None,
        future: Any,
        then: Callable[[Any], ToRobot | None] | None = None,
    ) -> None:
        self._line.asked()
        future.add_done_callback(partial(self._answer, reply_to, then))

    # -- the fleet answers

    def _answer(
        self, reply_to: str | int | None, then: Callable[[Any], ToRobot | None] | None, future: Any
    ) -> None:
        self._line.answered()
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
            self._registered = False
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
        self._registered = True
        self._tell_interval(robot.heartbeat_interval_ms)

    def _on_known(self, registering: Any) -> None:
        """Or refused: then what it says is, too."""
        if not self._closed:
            self._hear_early()

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

    def _say(self, message: ToRobot) -> None:
        if not self._closed:
            self._line.say(message)
