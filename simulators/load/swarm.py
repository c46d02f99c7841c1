"""Many robot brains on one event loop, each over its own socket."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from fleet.messages import Ack, ClaimJobs, FromRobot, Heartbeat, ServerMessage, decode_server_message
from simulators.load.weather import Weather
from simulators.robot import (
    ConnectAt,
    Connected,
    Disconnected,
    Effect,
    Heard,
    RobotBrain,
    RobotProfile,
    Say,
    Sense,
    WakeAt,
    Woke,
)

log = logging.getLogger("fleetcast.swarm")

# At its lowest level picows logs the handshake, and with it the token.
_socket_log = logging.getLogger("fleetcast.swarm.socket")
_socket_log.setLevel(logging.WARNING)

MAX_CONNECTING = 50
MAX_GOODBYE_S = 2.0
TEXT = WSMsgType.TEXT
NEVER_NS = 2**63 - 1
MAX_UNSENT_BYTES = 256 * 1024  # of a robot whose server does not read
FAULT_PAUSE_NS = 1_000_000_000
_encode = msgspec.json.Encoder().encode


class SwarmState(msgspec.Struct):
    robots: int = 0
    connected: int = 0
    beats: int = 0
    claims: int = 0
    completed: int = 0
    failed: int = 0
    reconnects: int = 0


async def say_goodbye(transports: list[WSTransport]) -> None:
    """A close for each, and a little time for its answer."""
    for transport in transports:
        transport.send_close(WSCloseCode.GOING_AWAY)
        transport.disconnect()
    goodbyes = (transport.wait_disconnected() for transport in transports)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(MAX_GOODBYE_S):
            await asyncio.gather(*goodbyes, return_exceptions=True)


class Observer(Protocol):
    """Learns what robots hear and say, and drives them beyond what their brains decide."""

    def on_heard(self, robot: Robot, message: ServerMessage) -> None: ...

    def on_said(self, robot: Robot, message: FromRobot) -> None: ...

    def on_left(self, robot: Robot) -> None:
        """Its connection ended, or could not be made."""


class Robot(WSListener):
    """The body of one brain: its socket. Alarms that were replaced are told by `alarm_ns`;
    `connecting` holds from the decision to connect until the socket is open or refused."""

    def __init__(self, swarm: Swarm, number: int, robot_id: str, profile: RobotProfile, seed: int) -> None:
        self.number = number
        self.robot_id = robot_id
        self.brain = RobotBrain(profile)
        self.rng = Random(f"{seed} {robot_id}")  # its own: what others hear, and when, changes nothing
        self.alarm_ns = 0
        self.connecting = False
        self.opened = 0
        self.away_until_ns = 0
        self.transport: WSTransport | None = None
        self.weather: Weather | None = None
        self.held = [0, 0]  # by its network: of what it said, and of what it is to hear
        self._swarm = swarm

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        self.connecting = False
        self._swarm.opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == TEXT:
            data = frame.get_payload_as_bytes()
            if self.weather is None:
                self._swarm.hear(self, data)
            else:
                self._swarm.hear_in_time(self, self.weather, data)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def pause_writing(self) -> None:
        self._swarm.stall(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transport = None
        self._swarm.leave(self)


class Swarm:
    """`robots` simulated robots against the server at `url` (http or https), numbered from `first`. One
    scheduler for all: a task exists per robot only while it connects, at most 50 at once."""

    def __init__(
        self,
        url: str,
        token: str,
        robots: int,
        profile: RobotProfile,
        prefix: str = "robot-sim",
        seed: int = 1,
        first: int = 1,
        observer: Observer | None = None,
    ) -> None:
        self._url = url.replace("http", "ws", 1).rstrip("/") + "/api/v1/ws/robot/"
        self._token = token
        self._observer = observer
        self.robots = [
            Robot(self, number, f"{prefix}-{first + number:03d}", profile, seed) for number in range(robots)
        ]
        self._due: list[tuple[int, int, Robot, Callable[[], object] | None]] = []
        self._tie = itertools.count()
        self._sooner = asyncio.Event()
        self._connecting = asyncio.Semaphore(MAX_CONNECTING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._state = SwarmState(robots=robots)
        self.reconnects = self.stalled = 0
        self.held = 0  # what robots' networks have not let through yet

    async def start(self) -> None:
        self._due.clear()
        for robot in self.robots:
            robot.alarm_ns = 0
        self.begin()
        self._task(self._run())

    def begin(self) -> None:
        """Everybody connects."""
        now_ns = time.monotonic_ns()
        for robot in self.robots:
            robot.connecting = True
            self._at(now_ns, robot, partial(self._begin_to_connect, robot))

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await say_goodbye(self.transports())

    def transports(self) -> list[WSTransport]:
        return [robot.transport for robot in self.robots if robot.transport is not None]

    def opened(self, robot: Robot) -> None:
        self.reconnects += robot.opened > 0
        robot.opened += 1
        self.think(robot, Connected())

    # -- sending

    def is_connected(self, robot: Robot) -> bool:
        return robot.transport is not None

    def send(self, robot: Robot, frame: bytes) -> bool:
        """False if it is not connected."""
        transport = robot.transport
        if transport is None:
            return False
        if robot.weather is None:
            transport.send(TEXT, frame)
        else:
            self._in_time(robot, robot.weather, partial(transport.send, TEXT, frame), inbound=False)
        return True

    def stall(self, robot: Robot) -> None:
        """Its server does not read: it is cut off."""
        if robot.transport is not None:
            self.stalled += 1
            robot.transport.disconnect(graceful=False)

    def hear_in_time(self, robot: Robot, weather: Weather, frame: bytes) -> None:
        self._in_time(robot, weather, partial(self.hear, robot, frame), inbound=True)

    def _in_time(self, robot: Robot, weather: Weather, deed: Callable[[], object], inbound: bool) -> None:
        """Now, or when its network lets it through; never on another connection than this, nor before what
        was held up earlier, which may be overdue while this loop is busy."""
        now_us = time.monotonic_ns() // 1_000
        at_us = weather.arrives_us(now_us, inbound)
        if at_us <= now_us and not robot.held[inbound]:
            deed()
            return
        transport = robot.transport
        robot.held[inbound] += 1
        self.held += 1

        def later() -> None:
            robot.held[inbound] -= 1
            self.held -= 1
            if robot.transport is transport:
                deed()

        self._at(at_us * 1_000, robot, later)

    def flush(self) -> None:
        """What was sent is on its way by now."""

    async def renew(self, token: str) -> None:
        """The token of the next connections; open ones keep theirs until it expires."""
        self._token = token

    async def state(self) -> SwarmState:
        self._state.connected = sum(map(self.is_connected, self.robots))
        self._state.completed = sum(robot.brain.completed for robot in self.robots)
        self._state.reconnects = self.reconnects
        self._state.failed = sum(robot.brain.failed for robot in self.robots)
        return self._state

    def lose(self, robot: Robot, until_ns: int) -> None:
        """It vanishes without a goodbye, and comes back then; not at all with NEVER_NS."""
        robot.away_until_ns = until_ns
        if robot.transport is not None:
            robot.transport.disconnect(graceful=False)

    def hear(self, robot: Robot, frame: bytes) -> None:
        try:
            message = decode_server_message(frame)
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.warning("robot %s heard what it does not understand", robot.robot_id)
        else:
            if self._observer is not None:
                self._observer.on_heard(robot, message)
            # Of all that is heard most is the answer to a heartbeat that wanted none.
            if type(message) is not Ack or message.jobs or robot.brain.awaits(message.id):
                self.think(robot, Heard(message))

    def leave(self, robot: Robot) -> None:
        if self._observer is not None:
            self._observer.on_left(robot)
        self.think(robot, Disconnected())

    def think(self, robot: Robot, heard: Sense) -> None:
        """One robot's fault stays its own."""
        try:
            for effect in robot.brain.decide(heard, time.monotonic_ns(), robot.rng):
                self._act(robot, effect)
        except Exception:
            log.exception("robot %s failed to think", robot.robot_id)
            # Its alarm may be lost with the thought; another chance keeps it alive.
            robot.alarm_ns = time.monotonic_ns() + FAULT_PAUSE_NS
            self._at(robot.alarm_ns, robot)

    def _act(self, robot: Robot, effect: Effect) -> None:
        match effect:
            case Say(message):
                self._state.beats += isinstance(message, Heartbeat)
                self._state.claims += isinstance(message, ClaimJobs)
                if self._observer is not None:
                    self._observer.on_said(robot, message)
                self.send(robot, _encode(message))
            case WakeAt(at_ns):
                if at_ns != robot.alarm_ns:
                    robot.alarm_ns = at_ns
                    self._at(at_ns, robot)
            case ConnectAt(at_ns) if not robot.connecting:
                robot.connecting = True
                self._at(at_ns, robot, partial(self._begin_to_connect, robot))

    def _at(self, at_ns: int, robot: Robot, deed: Callable[[], object] | None = None) -> None:
        """Without a deed it is to wake up, if that is still its alarm."""
        heapq.heappush(self._due, (at_ns, next(self._tie), robot, deed))
        if self._due[0][2] is robot:
            self._sooner.set()

    async def _run(self) -> None:
        while True:
            self._sooner.clear()
            now_ns = time.monotonic_ns()
            while self._due and self._due[0][0] <= now_ns:
                at_ns, _, robot, deed = heapq.heappop(self._due)
                if deed is not None:
                    deed()
                elif robot.alarm_ns == at_ns:
                    robot.alarm_ns = 0
                    self.think(robot, Woke())
            wait_s = max(0.0, (self._due[0][0] - time.monotonic_ns()) / 1e9) if self._due else None
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: in Python 3.11 it may swallow the cancellation that ends this loop.
                async with asyncio.timeout(wait_s):
                    await self._sooner.wait()

    def _begin_to_connect(self, robot: Robot) -> None:
        if robot.away_until_ns <= time.monotonic_ns():
            self._task(self._connect(robot))
        elif robot.away_until_ns < NEVER_NS:
            self._at(robot.away_until_ns, robot, partial(self._begin_to_connect, robot))

    async def _connect(self, robot: Robot) -> None:
        query = f"?token={quote(self._token, safe='')}" if self._token else ""
        opened, why = robot.opened, "cut off within the handshake"
        try:
            async with self._connecting:
                await ws_connect(
                    lambda: robot,
                    self._url + robot.robot_id + query,
                    logger_name=_socket_log,
                    max_redirects=0,  # picows logs where it is sent, token included
                )
        except Exception as error:  # whatever it was, this robot tries again later
            why = type(error).__name__
        # picows neither raises nor calls anybody when the connection ends within the handshake. Of a socket
        # that was open, the socket itself tells the end.
        if robot.opened == opened:
            log.info("robot %s cannot connect: %s", robot.robot_id, why)
            robot.connecting = False
            self.leave(robot)

    def _task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
