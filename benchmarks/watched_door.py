"""A door over an in-process fleet, in a process of its own, that publishes when told and looks at itself."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import msgspec
import uvloop
from processes import heard, own_kib, raise_file_limit

from actors.local import LocalFleet
from api.admission import Admission
from api.main import DoorServer
from api.settings import load
from api.websocket_protocol import FleetSocket
from fleet.events import JobStatusChanged, encode
from fleet.limits import Limits

PATH = "/api/v1/ws/live-jobs"
TICK_S = 0.01


class Publish(msgspec.Struct, frozen=True):
    """So many events a second, each with the time of its making (CLOCK_MONOTONIC, ns) as its id."""

    seconds: float
    events_per_s: int


class Published(msgspec.Struct, frozen=True):
    """`gone_after_s`: from a watcher's write buffer filling to its end, for each that was dropped."""

    events: int
    grew_kib: int
    gone_after_s: list[float]


class Look(msgspec.Struct, frozen=True):
    """Asks for a State."""


class State(msgspec.Struct, frozen=True):
    counted: int
    admitted: int
    connections: int
    tasks: int
    descriptors: int
    own_kib: int


class Blocked:
    """When which socket's buffer filled, and how long it stayed after."""

    def __init__(self, admission: Admission) -> None:
        self.gone_after_s: list[float] = []
        self._admission = admission
        self._since: dict[FleetSocket, float] = {}

    def look(self) -> None:
        now, here = time.monotonic(), set(self._admission.sockets())
        for socket in [s for s in self._since if s not in here]:
            self.gone_after_s.append(now - self._since.pop(socket))
        self._since = {s: self._since.get(s, now) for s in here if s.blocked}


class WatchedDoor:
    def __init__(self) -> None:
        self.fleet = LocalFleet(Limits())
        self.server = DoorServer(self.fleet, load(jwt_dev_mode=True, port=0))
        self._sent = 0

    async def publish(self, order: Publish) -> Published:
        source, blocked = self.fleet.rooms.job_store._events, Blocked(self.server.door.admission)
        loop, first, kib = asyncio.get_running_loop(), self._sent, own_kib(os.getpid())
        start_s, most_kib, ticks = loop.time(), kib, round(order.seconds / TICK_S)
        for tick in range(ticks):
            await asyncio.sleep(start_s + tick * TICK_S - loop.time())
            due = round((tick + 1) * TICK_S * order.events_per_s) - (self._sent - first)
            stamp = encode(JobStatusChanged(str(time.monotonic_ns()), "running", "2025-01-15T10:30:00.000Z"))
            source.publish([stamp] * due)
            self._sent += due
            blocked.look()
            if tick % 20 == 0:
                most_kib = max(most_kib, own_kib(os.getpid()))
        return Published(self._sent - first, most_kib - kib, blocked.gone_after_s)

    def look(self) -> State:
        door = self.server.door
        return State(
            sum(len(feed) for feed in door.hub.feeds.values()),
            len(door.admission),
            len(self.server._server.server_state.connections),
            len(asyncio.all_tasks()),
            len(os.listdir("/proc/self/fd")),
            own_kib(os.getpid()),
        )


async def run(pipe: Connection) -> None:
    door = WatchedDoor()
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(door.server.run(started.set_result))
    await asyncio.wait((serving, started), return_when="FIRST_COMPLETED")
    pipe.send(started.result())
    with suppress(EOFError, ConnectionError):
        while True:
            order = await heard(pipe)
            pipe.send(await door.publish(order) if isinstance(order, Publish) else door.look())
    os._exit(0)  # the clients are gone: nobody is left to say goodbye to


def serve(pipe: Connection) -> None:
    """The process: says its port, then does as it is told until the other side hangs up."""
    raise_file_limit()
    with suppress(KeyboardInterrupt):
        uvloop.run(run(pipe))
