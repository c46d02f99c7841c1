"""A swarm behind gateways: many robots over one socket each, as a site controller has them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from random import Random
from urllib.parse import quote

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from simulators.load.swarm import NEVER_NS, Observer, Robot, Swarm
from simulators.load.swarm import log as swarm_log
from simulators.robot import RobotProfile

_socket_log = logging.getLogger("fleetcast.swarm.socket")  # picows logs the handshake, and the token in it
AGAIN_S = 2.0
MAX_ENTERING = 500  # robots of a gateway that are not welcomed yet
MAX_UNSENT_BYTES = 8 * 1024 * 1024
FRAME_BYTES = 256 * 1024  # of an array of messages; a gateway may send 1 MiB


class _Addressed(msgspec.Struct):
    type: str = ""
    robot_id: str = ""


_address = msgspec.json.Decoder(_Addressed).decode


class _Gateway(WSListener):
    def __init__(self, swarm: GatewaySwarm, robots: list[Robot]) -> None:
        self.robots = robots
        self.transport: WSTransport | None = None
        self.unsent: list[bytes] = []
        self.unsent_bytes = 0
        self._by_name = {robot.robot_id: robot for robot in robots}
        self._swarm = swarm
        self._waiting: deque[Robot] = deque()
        self._entering: set[int] = set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._entering.clear()
        self._waiting = deque(self.robots)
        self._let_in()

    def _let_in(self) -> None:
        """A few at a time: each is a row in the server's store."""
        while self._waiting and len(self._entering) < MAX_ENTERING:
            robot = self._waiting.popleft()
            if self._swarm.enter(robot):
                self._entering.add(robot.number)

    def _note(self, robot: Robot, kind: str) -> None:
        """Of one that is to be welcomed. One that was refused tries again."""
        if robot.number in self._entering and kind in ("welcome", "error"):
            self._entering.discard(robot.number)
            if kind == "error":
                self._waiting.append(robot)
                self._swarm.leave(robot)
            self._let_in()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            data = frame.get_payload_as_bytes()
            try:
                to = _address(data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                to = _Addressed()
            robot = self._by_name.get(to.robot_id)
            if robot is None:
                swarm_log.warning("a gateway heard what is for none of its robots")
                return
            self._swarm.hear(robot, data)
            self._note(robot, to.type)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transport = None
        self.unsent.clear()
        self.unsent_bytes = 0
        for robot in self.robots:
            self._swarm.leave(robot)


class GatewaySwarm(Swarm):
    """`per_gateway` robots each. A gateway that loses its connection makes a new one; its robots wait."""

    def __init__(
        self,
        url: str,
        token: str,
        robots: int,
        profile: RobotProfile,
        prefix: str,
        seed: int,
        first: int,
        observer: Observer | None,
        per_gateway: int,
    ) -> None:
        super().__init__(url, token, robots, profile, prefix, seed, first, observer)
        self._gateway_url = url.replace("http", "ws", 1).rstrip("/") + "/api/v1/ws/robot-gateway"
        self._rng = Random(f"{seed} gateways {prefix} {first}")
        self._gateways = [
            _Gateway(self, self.robots[start : start + per_gateway])
            for start in range(0, robots, per_gateway)
        ]
        self._of = {robot.number: gateway for gateway in self._gateways for robot in gateway.robots}
        self._flushing: asyncio.Handle | None = None

    def begin(self) -> None:
        for robot in self.robots:
            robot.connecting = True  # never by itself
        for gateway in self._gateways:
            self._task(self._keep(gateway))

    def enter(self, robot: Robot) -> bool:
        """False for one that is gone for good."""
        if robot.away_until_ns == NEVER_NS:
            return False
        self.opened(robot)
        return True

    def is_connected(self, robot: Robot) -> bool:
        return self._of[robot.number].transport is not None and robot.away_until_ns < NEVER_NS

    def send(self, robot: Robot, frame: bytes) -> bool:
        gateway = self._of[robot.number]
        if gateway.transport is None or robot.away_until_ns == NEVER_NS:
            return False
        gateway.unsent.append(b'{"robot_id":"%s",%s' % (robot.robot_id.encode(), frame[1:]))
        gateway.unsent_bytes += len(frame)
        if gateway.unsent_bytes > FRAME_BYTES:
            self._flush(gateway)
        elif self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_soon(self.flush)
        return True

    def flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        for gateway in self._gateways:
            if gateway.unsent:
                self._flush(gateway)

    def _flush(self, gateway: _Gateway) -> None:
        messages, gateway.unsent, gateway.unsent_bytes = gateway.unsent, [], 0
        transport = gateway.transport
        if transport is None:
            return
        if transport.underlying_transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.stalled += 1
            transport.disconnect(graceful=False)
            return
        transport.send(WSMsgType.TEXT, b"[%s]" % b",".join(messages))

    async def _keep(self, gateway: _Gateway) -> None:
        while True:
            query = f"?token={quote(self._token, safe='')}" if self._token else ""
            try:
                async with self._connecting:
                    await ws_connect(
                        lambda: gateway,
                        self._gateway_url + query,
                        logger_name=_socket_log,
                        max_redirects=0,
                    )
            except Exception as error:  # whatever it was, it tries again
                swarm_log.info("a gateway cannot connect: %s", type(error).__name__)
            if gateway.transport is not None:
                await gateway.transport.wait_disconnected()
            await asyncio.sleep(self._rng.uniform(0, AGAIN_S))

    def transports(self) -> list[WSTransport]:
        return [gateway.transport for gateway in self._gateways if gateway.transport is not None]
