"""A way to a door on which bytes are late, few at a time, held up, or torn from their connection."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Literal

import msgspec

PACKET = 1_460  # bytes
MAX_PACKETS = 64  # under way on one connection in one direction; then its sender waits
RETRANSMIT_S = 0.2  # after a first loss; twice as long after each further one
RESET_NOT_CLOSE = struct.pack("ii", 1, 0)
Way = Literal["up", "down"]  # from clients to the door, and back


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """TCP makes of a lost packet a late one, and what was sent in order arrives in order: but on one
    connection only. Pairs are bounds between which a time is drawn.

    `delay_ms`: of each packet; `lag_ms`: of a connection, for all its life, so that what is said on one
    overtakes what was said before on another; `loss`: probability; `bytes_per_s`: of all connections
    together, in each direction; `cut_after`: bytes, on average, until a connection is reset."""

    delay_ms: tuple[float, float] = (0.0, 0.0)
    lag_ms: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0
    bytes_per_s: float = math.inf
    cut_after: float = math.inf


class Seen(msgspec.Struct):
    """What the weather did. `late_s`: of all packets together; `held`: packets that a hole kept waiting;
    `overtaken`: packets that came after some that were sent later on another connection; `cut`:
    connections that were reset within a packet."""

    packets: int = 0
    late_s: float = 0.0
    lost: int = 0
    held: int = 0
    overtaken: int = 0
    cut: int = 0


class Proxy:
    """Between any client and the door at `port` of this machine. The weather may change at any time."""

    def __init__(self, port: int, weather: Weather, seed: int) -> None:
        self.port = 0
        self.weather = weather
        self.seen = Seen()
        self.rng = Random(seed)
        self.sent = 0  # packets so far, by which they are numbered
        self._target = port
        self._roads: dict[Way, Road] = {"up": Road(self), "down": Road(self)}
        self._links: dict[asyncio.Task[None], Link] = {}

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int, weather: Weather, seed: int = 1) -> AsyncIterator[Proxy]:
        proxy = cls(port, weather, seed)
        server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0, limit=PACKET)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.reset()
            await asyncio.gather(*proxy._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target, limit=PACKET)
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, self._roads, (reader, writer), there)
        task = asyncio.create_task(link.run())
        self._links[task] = link
        task.add_done_callback(lambda task: self._links.pop(task))

    def reset(self) -> int:
        """Every connection that is open; returns how many."""
        for link in [*self._links.values()]:
            link.reset()
        return len(self._links)

    @asynccontextmanager
    async def hole(self, way: Way) -> AsyncIterator[None]:
        """Nothing comes through in one direction, the end of a connection included; in the end, what was
        sent meanwhile does."""
        self._roads[way].open.clear()
        try:
            yield
        finally:
            self._roads[way].open.set()


class Road:
    """One direction, which all connections share."""

    def __init__(self, proxy: Proxy) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self._proxy = proxy
        self._free_at = 0.0
        self._newest = 0

    def arrival(self, size: int, lag_s: float) -> float:
        """When a packet that is sent now arrives."""
        weather, rng, seen = self._proxy.weather, self._proxy.rng, self._proxy.seen
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + size / weather.bytes_per_s
        at = self._free_at + lag_s + rng.uniform(*weather.delay_ms) / 1_000
        again_s = RETRANSMIT_S
        while rng.random() < weather.loss:
            seen.lost += 1
            at, again_s = at + again_s, 2 * again_s
        seen.packets += 1
        seen.late_s += at - now
        return at

    async def take(self, number: int) -> None:
        """Waits until the road is open. Packet `number` is through."""
        self._proxy.seen.held += not self.open.is_set()
        await self.open.wait()
        self._proxy.seen.overtaken += number < self._newest
        self._newest = max(self._newest, number)


class Link:
    """One connection of a client, and ours to the door on its behalf."""

    def __init__(
        self,
        proxy: Proxy,
        roads: dict[Way, Road],
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._writers = here[1], there[1]
        weather, rng = proxy.weather, proxy.rng
        self.lag_s = rng.uniform(*weather.lag_ms) / 1_000
        self.left = math.inf if math.isinf(weather.cut_after) else rng.expovariate(1 / weather.cut_after)
        self._pumps = [
            Pump(proxy, self, roads["up"], here[0], there[1]),
            Pump(proxy, self, roads["down"], there[0], here[1]),
        ]
        self._works: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        for pump in self._pumps:
            self._works += map(asyncio.ensure_future, (pump.receive(), pump.deliver()))
        await asyncio.gather(*self._works, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    def reset(self) -> None:
        """Both ends are told that the connection is gone, with whatever is under way on it."""
        for writer in self._writers:
            peer: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOT_CLOSE)
            writer.transport.abort()
        for work in self._works:
            work.cancel()

    def cut(self, packet: bytes) -> bytes | None:
        """What still passes of the packet within which this connection is reset; None: it is not."""
        self.left -= len(packet)
        if self.left > 0 or len(packet) < 2:
            return None
        self._proxy.seen.cut += 1
        return packet[: self._proxy.rng.randrange(1, len(packet))]


class Pump:
    """One direction of one connection."""

    def __init__(
        self,
        proxy: Proxy,
        link: Link,
        road: Road,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._link = link
        self._road = road
        self._reader = reader
        self._writer = writer
        # Empty bytes end it.
        self._under_way: asyncio.Queue[tuple[float, int, bytes]] = asyncio.Queue(MAX_PACKETS)
        self._last_at = 0.0

    async def receive(self) -> None:
        packet = b"x"
        while packet:
            try:
                packet = await self._reader.read(PACKET)
            except ConnectionError:
                packet = b""
            self._last_at = max(self._last_at, self._road.arrival(len(packet), self._link.lag_s))
            self._proxy.sent += 1
            await self._under_way.put((self._last_at, self._proxy.sent, packet))

    async def deliver(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            at, number, packet = await self._under_way.get()
            await asyncio.sleep(at - loop.time())
            await self._road.take(number)
            passes = self._link.cut(packet)
            if not self._writer.transport.is_closing():  # what is sent to who is gone is lost
                self._writer.write(packet if passes is None else passes)
            if passes is not None:
                self._link.reset()
            if not packet:
                break
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
        with contextlib.suppress(OSError):
            self._writer.write_eof()
