"""What a client may send and must not get away with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from typing import Any

import pytest
from conftest import World, end_of, fresh, hear
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

STREAMS = ["live-jobs", "robot-status", "queue-metrics", "metrics/stream"]
MASK = bytes(4)


def frame(first: int, payload: bytes = b"") -> bytes:
    """A client's frame, masked with zeros (RFC 6455 5.2)."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes((first,)) + length + MASK + payload


async def test_only_the_exact_word_is_a_ping(world: World) -> None:
    async with world.open("live-jobs") as socket:
        for text in ("PING", " ping", "ping ", "ping\n", '{"type": "ping"}', ""):
            await socket.send(text)
        await socket.send("ping")
        assert await socket.recv() == "pong"
        await socket.close()
    assert (await world.connections())["ignored_messages"] == 6


async def send_for_ever(socket: ClientConnection, data: bytes) -> None:
    with contextlib.suppress(ConnectionClosed, ConnectionError):
        while not socket.transport.is_closing():
            socket.transport.write(data)
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "flood",
    [frame(0x81, b"ping") * 50, frame(0x89, b"x") * 50, frame(0x8A, b"x") * 50],
    ids=["text pings", "pings of the protocol", "pongs nobody asked for"],
)
async def test_a_flood_of_small_frames_ends_its_socket_and_no_other(flood: bytes) -> None:
    async with fresh(inbound_patience_s=0.05) as world, world.open("live-jobs") as watcher:
        async with world.open("live-jobs") as socket:
            sending = asyncio.create_task(send_for_ever(socket, flood))
            assert (await end_of(socket))[0] == 1008
            await sending
        async with world.http() as http:
            job_id = (await http.post("/jobs", json={"name": "n"})).json()["job_id"]
        assert (await hear(watcher))["job_id"] == job_id


async def test_a_peer_that_pings_and_never_reads_fills_no_memory() -> None:
    async with fresh(max_messages_per_s=10**9) as world, world.mute("live-jobs") as peer:
        [socket] = world.server.door.admission.sockets()
        while not socket.blocked:
            peer.say(frame(0x89, b"x" * 125) * 500)
            await asyncio.sleep(0)
        waiting = socket.unsent_bytes()
        for _ in range(20):
            peer.say(frame(0x89, b"x" * 125) * 500)
            await asyncio.sleep(0)
        async with world.http() as http:
            await http.get("/health/live")  # a turn of everybody's
        assert socket.unsent_bytes() <= waiting


@pytest.mark.parametrize("path", [*STREAMS, "robot/r-1"])
async def test_a_message_that_says_it_is_huge_is_closed_1009_before_it_comes(world: World, path: str) -> None:
    async with world.open(path) as socket:
        socket.transport.write(b"\x81\xff" + struct.pack("!Q", 16 * 1024 * 1024) + MASK)
        assert (await end_of(socket))[0] == 1009


async def test_a_message_whose_fragments_add_up_to_too_much_is_closed_1009(world: World) -> None:
    async with world.open("live-jobs") as socket:
        socket.transport.write(frame(0x01, b"x" * 60_000) + frame(0x00, b"x" * 6_000))
        assert (await end_of(socket))[0] == 1009


async def test_a_message_of_endless_empty_fragments_is_closed_1009(world: World) -> None:
    async with world.open("live-jobs") as socket:
        socket.transport.write(frame(0x01) + frame(0x00) * 2_000)
        assert (await end_of(socket))[0] == 1009


async def test_compression_is_not_negotiated_so_that_no_bomb_is_unpacked(world: World) -> None:
    async with connect(world.url("live-jobs"), compression="deflate") as socket:
        assert socket.response is not None
        assert "sec-websocket-extensions" not in socket.response.headers
        socket.transport.write(frame(0xC1, b"bomb"))  # compressed all the same
        assert (await end_of(socket))[0] == 1002


async def test_what_follows_a_close_is_ignored(world: World) -> None:
    async with world.open("live-jobs") as socket:
        socket.transport.write(frame(0x88, struct.pack("!H", 1000)) + frame(0x81, b"ping") + b"\xff\xff")
        assert (await end_of(socket))[0] == 1000


async def test_a_watcher_that_reads_a_byte_at_a_time_is_dropped_and_counted() -> None:
    async with fresh(send_timeout_s=0.3) as world, world.mute("live-jobs") as peer:
        room: Any = world.fleet.rooms.broadcasters["live-jobs"]
        await room.publish("flood", 10_000_000, [b'{"job_id":"%s"}' % (b"x" * 1_000)] * 900)
        while (await world.connections())["slow_disconnects"] == 0:
            await peer.read_a_byte()
        assert await world.watching() == 0


async def test_two_doors_of_a_fleet_each_tell_an_event_once(world: World) -> None:
    async with (
        fresh(fleet=world.fleet) as other,
        world.open("live-jobs") as here,
        other.open("live-jobs") as there,
    ):
        async with world.http() as http:
            sent = [(await http.post("/jobs", json={"name": "n"})).json()["job_id"] for _ in range(20)]
        for socket in (here, there):
            assert [(await hear(socket))["job_id"] for _ in sent] == sent


async def test_handshakes_of_all_kinds_leave_no_descriptor_behind(world: World) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        request = world.url("live-jobs").split(str(world.port), 1)[1]
        writer.write(f"GET {request} HTTP/1.1\r\nHost: x\r\n".encode())
        if number % 3:
            writer.write(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n")
            writer.write(b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")
        if number % 3 == 2:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.transport.abort()
    while world.server._server.server_state.connections or len(os.listdir("/proc/self/fd")) > before:
        await asyncio.sleep(0)
    assert len(world.server.door.admission) == 0
    assert await world.watching() == 0
