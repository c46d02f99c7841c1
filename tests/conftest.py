"""A door on a real port, with the rooms in this process; one Ray for those tests that want it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from postgres import Postgres, postgres_server
from stores.small_disk import SmallDisk
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.client import FleetClient
from actors.local import LocalFleet
from actors.supervisor import Supervisor
from actors.supervisor import connect as connect_ray
from api.auth import mint
from api.main import DoorServer
from api.settings import load
from fleet.limits import Limits

# The same examples every time; `make test-long` looks further.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.load_profile("same")
# Not random: pytest and `from conftest import` make two modules of this file, whose secrets must be one.
SECRET = "the secret of the tests, which is none: " * 2
QUICK = {
    "heartbeat_interval_ms": 400,
    "tick_ms": 5,
    "long_poll_ms": 200,
    "cancel_grace_ms": 300,
    "occupancy_interval_ms": 100,
    "live_jobs_interval_ms": 1,
}


def search_further(machine: type[RuleBasedStateMachine]) -> None:
    """New examples every time; a failure prints how to have them again."""
    more = settings(max_examples=1_500, stateful_step_count=60, derandomize=False, print_blob=True)
    run_state_machine_as_test(machine, settings=more)  # type: ignore[no-untyped-call]


class World:
    """A served fleet and a client's way to it."""

    def __init__(self, port: int, fleet: Any, server: DoorServer) -> None:
        self.port = port
        self.fleet = fleet
        self.server = server
        self.namespace = ""

    def token(self, role: str = "admin", ttl_s: float = 60.0, **claims: Any) -> str:
        return mint(SECRET, "tester", role, ttl_s, time.time(), **claims)

    def url(self, path: str, token: str | None = "", **query: Any) -> str:
        """`token` "" mints one, None leaves it out."""
        named = dict(query)
        if token is not None:
            named["token"] = token or self.token()
        return f"ws://127.0.0.1:{self.port}/api/v1/ws/{path}?{httpx.QueryParams(named)}"

    def open(self, path: str, token: str | None = "", **query: Any) -> connect:
        return connect(self.url(path, token, **query), compression=None)

    def http(self, role: str = "admin") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}/api/v1",
            headers={"Authorization": f"Bearer {self.token(role)}"},
        )

    @contextlib.asynccontextmanager
    async def raw(self, path: str, token: str | None = "") -> AsyncIterator[Mute]:
        """A peer that writes what it likes, and reads when it is told to, with room for much."""
        async with self.mute(path, token, room=1 << 20) as peer:
            yield peer

    @contextlib.asynccontextmanager
    async def mute(
        self, path: str, token: str | None = "", room: int = 4_096, **query: Any
    ) -> AsyncIterator[Mute]:
        """A peer that shakes hands and then neither reads nor answers."""
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            peer.setblocking(False)
            await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", self.port))
            reader, writer = await asyncio.open_connection(sock=peer, limit=1_024)
            url = self.url(path, token, **query).split(str(self.port), 1)[1]
            writer.write(
                f"GET {url} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            yield Mute(reader, writer)
            writer.transport.abort()

    async def connections(self) -> Any:
        async with self.http() as http:
            return (await http.get("/metrics/connections")).json()

    async def watching(self) -> int:
        return sum((await self.connections())["connections"].values())


class Mute:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, frame: bytes) -> None:
        self._writer.write(frame)

    async def read_a_byte(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(ConnectionError):
            await self._reader.read(1)
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def read_on(self) -> bytes:
        """Reads after all, to the end of the connection."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]
        data = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await asyncio.wait_for(self._reader.read(65_536), 10):
                data += chunk
        return data


def opcodes(data: bytes) -> list[int]:
    """Of the server's frames (RFC 6455 5.2), which carry no mask."""
    found = []
    while data:
        found.append(data[0] & 0xF)
        size, header = data[1], 2
        if size == 126:
            size, header = int.from_bytes(data[2:4], "big"), 4
        data = data[header + size :]
    return found


async def hear(socket: ClientConnection) -> Any:
    """The next message, decoded."""
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


async def until(socket: ClientConnection, wanted: Callable[[Any], bool]) -> Any:
    while True:
        message = await hear(socket)
        if wanted(message):
            return message


async def end_of(socket: ClientConnection) -> tuple[int, str]:
    """Reads to the end: the close code and reason that the server sent."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(10):
            while True:
                await socket.recv()
    assert socket.close_code is not None
    return socket.close_code, socket.close_reason or ""


async def refused(world: World, token: str) -> tuple[int, str]:
    """Opens and closes sockets until one is not let in: status and code of that answer."""
    async with asyncio.timeout(20):
        while True:
            try:
                await let_in(world, token)
            except InvalidStatus as refusal:
                return refusal.response.status_code, json.loads(refusal.response.body or b"")["code"]


async def let_in(world: World, token: str) -> None:
    async with world.open("live-jobs", token):
        pass


async def let_in_again(world: World, token: str) -> None:
    """Knocks until it is let in."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(InvalidStatus):
                return await let_in(world, token)


@asynccontextmanager
async def served(fleet: Any, **settings: Any) -> AsyncIterator[World]:
    values = {"port": 0, "jwt_secret_key": SECRET, "jwt_dev_mode": False, "limits_json": QUICK} | settings
    server = DoorServer(fleet, load(**values), "0.0.0-test")
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(server.run(started.set_result))
    try:
        yield World(await asyncio.wait_for(started, 20), fleet, server)
    finally:
        await server.drain()
        server.stop()
        await running


@asynccontextmanager
async def fresh(refresh_ms: int = 1_000, fleet: Any = None, **settings: Any) -> AsyncIterator[World]:
    """A world with settings of its own; with `fleet` another door of that fleet."""
    own = fleet or LocalFleet(quick_limits(refresh_ms=refresh_ms))
    async with served(own, **settings) as world:
        yield world
    if fleet is None:
        await own.close()


class FollowFeed:
    """A reader of a feed that keeps its place."""

    def __init__(self, fleet: FleetClient, name: str, epoch: str, offset: int) -> None:
        self.fleet = fleet
        self.name = name
        self.epoch = epoch
        self.offset = offset
        self.kept: list[bytes] = []

    @classmethod
    async def begin(cls, fleet: FleetClient, name: str) -> FollowFeed:
        """At the head: what comes from now on."""
        page = await fleet.read(name, "", 0, 0)
        return cls(fleet, name, page.epoch, page.offset)

    async def take(self, count: int) -> list[Any]:
        """The next `count` events, decoded."""
        async with asyncio.timeout(20):
            while len(self.kept) < count:
                page = await self.fleet.read(self.name, self.epoch, self.offset, 1_000)
                self.epoch, self.offset = page.epoch, page.offset
                self.kept += page.events
        events, self.kept = self.kept[:count], self.kept[count:]
        return [json.loads(event) for event in events]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for all tests of a run; a namespace for each."""
    connect_ray(None, "fleetcast-tests", 2)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests of a run, which are marked `system`; a `new_database()` for each. It runs
    again after a test that stopped it."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Needs root."""
    (tmp_path / "disk").mkdir()
    disk = SmallDisk(tmp_path / "disk", 16)
    yield disk
    disk.remove()


@pytest.fixture
def supervisor(ray_cluster: None) -> Iterator[Supervisor]:
    supervisor = Supervisor(f"test-{secrets.token_hex(4)}", quick_limits(), "0.0.0-test")
    yield supervisor
    supervisor.stop()


@pytest.fixture(params=["local", "ray"])
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[FleetClient]:
    if request.param == "local":
        fleet: FleetClient = LocalFleet(quick_limits(), "0.0.0-test")
    else:
        supervisor: Supervisor = request.getfixturevalue("supervisor")
        fleet = await asyncio.to_thread(supervisor.client)
    yield fleet
    await fleet.close()


def quick_limits(**more: int) -> Limits:
    return Limits(**QUICK | more)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    fleet = LocalFleet(quick_limits(), "0.0.0-test")
    async with served(fleet) as world:
        yield world
    await fleet.close()
