"""Simulated robots: the brain of `simulators.robot`, a socket each, and what may befall them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from random import Random
from typing import Literal
from urllib.parse import quote

import msgspec
from checkers.history import Recorder
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from chaos.robot_log import RobotLog
from fleet.messages import Complete, FromRobot, Welcome, decode_server_message
from simulators.robot import (
    ConnectAt,
    Connected,
    Disconnected,
    Heard,
    RobotBrain,
    RobotProfile,
    Say,
    Sense,
    WakeAt,
    Woke,
)

MAX_CONNECTING = 20
RESET_NOT_CLOSE = struct.pack("ii", 1, 0)
_encode = msgspec.json.Encoder().encode
_socket_log = logging.getLogger("chaos.socket")  # at its lowest level it would show the token
_socket_log.setLevel(logging.WARNING)
State = Literal["here", "frozen", "away"]


class Orphan(msgspec.Struct):
    """A job whose robot dropped its socket with it. `back_ns`: when that robot came back, if ever."""

    job_id: str
    token: int
    attempt: int
    max_attempts: int
    robot_id: str
    at_ns: int
    at_wall_ns: int
    back_ns: int | None = None


class Period(msgspec.Struct):
    """Until `to_ns`, or still."""

    from_ns: int
    to_ns: int | None = None


class Robot(WSListener):
    def __init__(self, robot_id: str, crowd: Crowd, profile: RobotProfile, seed: int) -> None:
        self.robot_id = robot_id
        self.log = RobotLog(robot_id, crowd.recorder)
        self.state: State = "here"
        self.steady: list[Period] = []  # in which it was here, connected and welcome
        self._crowd = crowd
        self._brain = RobotBrain(profile)
        self._rng = Random(f"{seed} {robot_id}")
        self._transport: WSTransport | None = None
        self._missed: list[Sense] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._opened = 0
        self._rash = 0
        self._orphans: list[Orphan] = []

    def start(self) -> None:
        self._connect()

    async def stop(self) -> None:
        """It never comes back, and neither does anything that waits."""
        self.state = "away"
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._transport is not None:
            self._transport.disconnect(False)
            await self._transport.wait_disconnected()

    # -- what befalls it

    def reset(self) -> None:
        if self._transport is not None:
            peer: socket.socket = self._transport.underlying_transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOT_CLOSE)
            self._transport.disconnect(False)

    def leave(self, back_s: float | None) -> list[Orphan]:
        """With its jobs, which it keeps at heart."""
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        self._orphans = [
            Orphan(g.job_id, g.token, g.attempt, g.max_attempts, self.robot_id, now_ns, wall_ns)
            for g in self.log.held.values()
        ]
        self._unsettle("away")
        if self._transport is not None:
            self._transport.disconnect(False)
        if back_s is not None:
            asyncio.get_running_loop().call_later(back_s, self._come_back)
        return self._orphans

    def _come_back(self) -> None:
        if self._crowd.over:
            return
        for orphan in self._orphans:
            orphan.back_ns = time.monotonic_ns()
        self.state = "here"
        self._think(Disconnected())

    def freeze(self, for_s: float) -> None:
        self._unsettle("frozen")
        asyncio.get_running_loop().call_later(for_s, self._thaw)

    def _thaw(self) -> None:
        """Acts on what it believes, before it hears what it missed."""
        if self._crowd.over:
            return
        self.state = "here"
        self.log.began_ns = time.monotonic_ns()
        missed, self._missed = self._missed, []
        if self._transport is not None:
            self._settle()
        self._be_rash()
        self._think(Woke())
        for sense in missed:
            self._hear(sense)

    def _be_rash(self) -> None:
        """Its brain would drop a job whose lease is over. Others' robots may not."""
        for grant in tuple(self.log.held.values()):
            self._rash += 1
            self._say(Complete(id=f"rash{self._rash}", job_id=grant.job_id, token=grant.token))

    # -- its socket

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._opened += 1
        if self.state == "away":
            transport.disconnect(False)
        else:
            self._hear(Connected())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self._hear(Heard(decode_server_message(frame.get_payload_as_bytes())))
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._transport = None
        self._unsettle(self.state)
        self.log.lose()
        if self.state != "away":
            self._hear(Disconnected())

    def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        opened = self._opened
        try:
            async with self._crowd.connecting:
                url = self._crowd.url_of(self)
                with contextlib.suppress(Exception):  # whatever it was, this robot tries again later
                    await ws_connect(lambda: self, url, logger_name=_socket_log, max_redirects=0)
        finally:
            self._connecting = None
        # picows neither raises nor calls anybody when the connection ends within the handshake. Of a socket
        # that was open, the socket itself tells the end.
        if self._opened == opened and self.state != "away":
            self._hear(Disconnected())

    @property
    def settled(self) -> bool:
        return bool(self.steady) and self.steady[-1].to_ns is None

    def _settle(self) -> None:
        if not self.settled:
            self.steady.append(Period(time.monotonic_ns()))

    def _unsettle(self, state: State) -> None:
        self.state = state
        if self.settled:
            self.steady[-1].to_ns = time.monotonic_ns()

    # -- its brain

    def _hear(self, sense: Sense) -> None:
        if self.state == "frozen":
            self._missed.append(sense)
            return
        if isinstance(sense, Heard):
            message = sense.message
            self.log.hear(message)
            if isinstance(message, Welcome):
                self._settle()
        self._think(sense)

    def _think(self, sense: Sense) -> None:
        if self.state != "here":
            return
        for effect in self._brain.decide(sense, time.monotonic_ns(), self._rng):
            match effect:
                case Say(message):
                    self._say(message)
                case WakeAt(at_ns):
                    self._wake_at(at_ns)
                case ConnectAt(at_ns):
                    wait_s = max(0.0, (at_ns - time.monotonic_ns()) / 1e9)
                    asyncio.get_running_loop().call_later(wait_s, self._connect_if_here)

    def _connect_if_here(self) -> None:
        if self.state != "away" and self._transport is None:
            self._connect()

    def _wake_at(self, at_ns: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        wait_s = max(0.0, (at_ns - time.monotonic_ns()) / 1e9)
        self._alarm = asyncio.get_running_loop().call_later(wait_s, self._think, Woke())

    def _say(self, message: FromRobot) -> None:
        if self._transport is None:
            return
        self.log.say(message)
        self._transport.send(WSMsgType.TEXT, _encode(message))


class Crowd:
    """All robots. `over` once the run ends: nobody comes back any more."""

    def __init__(
        self, url: str, token: str, count: int, profile: RobotProfile, seed: int, recorder: Recorder
    ) -> None:
        self.recorder = recorder
        self.connecting = asyncio.Semaphore(MAX_CONNECTING)
        self.over = False
        self.orphans: list[Orphan] = []
        self._base = url.replace("http", "ws", 1) + "/api/v1/ws/robot/"
        self._query = f"?token={quote(token, safe='')}"
        self._profile = profile
        self._seed = seed
        self.robots: dict[str, Robot] = {}
        for _ in range(count):
            self._add()

    def _add(self) -> Robot:
        name = f"robot-{len(self.robots):03d}"
        self.robots[name] = Robot(name, self, self._profile, self._seed)
        return self.robots[name]

    def lose(self, robot: Robot) -> None:
        """For ever; another one joins in its place, or a long run would end with nobody."""
        self.orphans += robot.leave(None)
        self._add().start()

    def url_of(self, robot: Robot) -> str:
        return self._base + robot.robot_id + self._query

    def start(self) -> None:
        for robot in self.robots.values():
            robot.start()

    async def stop(self) -> None:
        self.over = True
        await asyncio.gather(*(robot.stop() for robot in self.robots.values()))

    async def wait_until_steady(self) -> None:
        while not all(robot.settled for robot in self.robots.values()):
            await asyncio.sleep(0.1)

    def pick(self, dice: float) -> Robot | None:
        """Of those at work; of those that are here, if nobody is at work."""
        here = [robot for robot in self.robots.values() if robot.state == "here" and robot.settled]
        busy = [robot for robot in here if robot.log.held] or here
        return busy[int(dice * len(busy))] if busy else None

    def stale_refused(self) -> int:
        return sum(robot.log.stale_refused for robot in self.robots.values())
