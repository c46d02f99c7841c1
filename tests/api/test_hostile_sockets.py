"""What a client may send and must not get away with."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import World, end_of, fresh, hear, opcodes
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.websocket_protocol import FleetSocket

STREAMS = ["live-jobs", "robot-status", "queue-metrics", "metrics/stream"]
MASK = bytes(4)


@pytest.fixture(autouse=True)
def close_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends on after our close is not listened to, and so has to be waited for."""
    monkeypatch.setattr("api.websocket_protocol.CLOSE_TIMEOUT_S", 0.3)


def frame(first: int, payload: bytes = b"") -> bytes:
    """A client's frame, masked with zeros (RFC 6455 5.2)."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes((first,)) + length + MASK + payload


def handshake(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    ).encode()


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


async def test_a_close_between_the_fragments_of_a_message_is_a_close(world: World) -> None:
    async with world.open("live-jobs") as socket:
        socket.transport.write(frame(0x01, b"begun") + frame(0x88, struct.pack("!H", 1000)))
        assert (await end_of(socket))[0] == 1000


async def test_a_socket_that_is_gone_writes_to_nobody_elses_descriptor(world: World) -> None:
    client = await world.open("live-jobs")
    [socket] = world.server.door.admission.sockets()
    descriptor = socket.transport.get_extra_info("socket").fileno()
    client.transport.abort()
    while socket in world.server._server.server_state.connections:
        await asyncio.sleep(0)
    reader, writer = os.pipe()
    try:
        os.dup2(writer, descriptor)
        socket.write(b"not for you")
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 100)
    finally:
        for number in {reader, writer, descriptor}:
            os.close(number)


async def test_who_leaves_or_speaks_while_its_token_is_looked_at_is_neither_kept_nor_deaf(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    door, go_on = world.server.door, asyncio.Event()
    look = door.principal

    async def slowly(connection: Any) -> Any:
        await go_on.wait()
        return await look(connection)

    monkeypatch.setattr(door, "principal", slowly)
    leaver, talker = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(2)]
    path = world.url("live-jobs").split(str(world.port), 1)[1]
    for _, writer in (leaver, talker):
        writer.write(handshake(path))
    open_ones = world.server._server.server_state.connections
    while sum(isinstance(one, FleetSocket) for one in open_ones) < 2:
        await asyncio.sleep(0)
    leaver[1].transport.abort()
    talker[1].write(frame(0x89, b"too early") + b"\x81")  # and half a frame
    go_on.set()
    assert (await talker[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")  # before any pong
    assert await talker[0].readexactly(11) == frame(0x8A, b"too early").replace(b"\x89" + MASK, b"\x09")
    while len(open_ones) > 1:
        await asyncio.sleep(0)
    talker[1].write(frame(0x81, b"whole")[1:])
    talker[1].write(frame(0x81, b"ping"))
    assert await talker[0].readexactly(6) == b"\x81\x04pong"
    assert len(door.admission) == 1
    assert await world.watching() == 1
    talker[1].transport.abort()


async def test_a_watcher_that_reads_a_byte_at_a_time_is_dropped_and_counted() -> None:
    async with fresh(send_timeout_s=0.3) as world, world.mute("live-jobs") as peer:
        room: Any = world.fleet.rooms.job_store
        room._events.publish([b'{"job_id":"%s"}' % (b"x" * 1_000)] * 900)
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
        whole = handshake(world.url("live-jobs").split(str(world.port), 1)[1])
        writer.write(whole if number % 3 else whole[:40])
        if number % 3 == 2:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.transport.abort()
    while world.server._server.server_state.connections or len(os.listdir("/proc/self/fd")) > before:
        await asyncio.sleep(0)
    assert len(world.server.door.admission) == 0
    assert await world.watching() == 0


# -- frames by the ten thousand


def count_of(opcode: int, heard: bytes) -> int:
    return sum(1 for at in opcodes(heard) if at == opcode)


@pytest.mark.parametrize("path", [*STREAMS, "robot/r-1"])
async def test_forty_thousand_frames_at_once_are_not_all_answered(path: str) -> None:
    async with fresh(max_robot_messages_per_s=30) as world, world.raw(path) as peer:
        peer.say(frame(0x89) * 40_000)
        heard = await peer.read_on()
        assert 0x8 in opcodes(heard)
        assert count_of(0xA, heard) < 1_000


async def test_after_a_refusal_hardly_anything_is_heard(world: World) -> None:
    async with world.raw("live-jobs", token="bad") as peer:
        peer.say(frame(0x89) * 40_000)
        heard = await peer.read_on()
    assert opcodes(heard) == [0x8]


async def test_a_close_is_answered_even_if_a_ping_that_is_not_comes_with_it() -> None:
    async with fresh(send_timeout_s=600) as world, world.mute("live-jobs") as peer:
        room: Any = world.fleet.rooms.job_store
        room._events.publish([b'{"job_id":"%s"}' % (b"x" * 1_000)] * 900)
        [socket] = world.server.door.admission.sockets()
        while not socket.blocked:
            await asyncio.sleep(0)
        peer.say(frame(0x89, b"unread") + frame(0x88, struct.pack("!H", 1000)))
        kinds = opcodes(await peer.read_on())
    assert kinds[-1] == 0x8
    assert 0xA not in kinds


async def test_a_robot_that_pings_and_never_reads_fills_no_memory() -> None:
    async with fresh(max_robot_messages_per_s=10**9) as world, world.mute("robot/r-1") as peer:
        [socket] = world.server.door.admission.sockets()
        while not socket.blocked:
            peer.say(frame(0x81, b"ping") * 2_000)
            await asyncio.sleep(0)
        waiting = socket.unsent_bytes()
        for _ in range(50):
            peer.say(frame(0x81, b"ping") * 500)
            await asyncio.sleep(0)
        assert socket.unsent_bytes() <= waiting


# -- handshakes on used connections


async def used_connection(world: World, path: str = "/api/v1/health/live") -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return reader, writer


async def test_a_handshake_may_follow_an_answer_that_was_read(world: World) -> None:
    reader, writer = await used_connection(world)
    answer = await reader.readuntil(b"\r\n\r\n")
    [length] = re.findall(rb"content-length: (\d+)", answer.lower())
    await reader.readexactly(int(length))
    writer.write(handshake(world.url("live-jobs").split(str(world.port), 1)[1]))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    writer.write(frame(0x81, b"ping"))
    assert await reader.readexactly(6) == b"\x81\x04pong"
    [socket] = world.server.door.admission.sockets()
    assert not socket.blocked
    writer.transport.abort()


async def test_a_handshake_before_the_answer_of_the_request_before_it_ends_the_connection(
    world: World,
) -> None:
    async with world.http() as http:
        await http.post("/robots/register", json={"robot_id": "r-1"})
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    body = b'{"robot_id":"r-1","request_id":"c","limit":1,"wait_ms":30000}'
    writer.write(
        b"POST /api/v1/jobs/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {world.token()}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
        + handshake(world.url("live-jobs").split(str(world.port), 1)[1])
    )
    with contextlib.suppress(ConnectionError):
        assert b"101" not in await reader.read()
    assert len(world.server.door.admission) == 0
    writer.close()


# -- when our own side fails


async def test_a_socket_whose_end_fails_is_counted_out_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open("live-jobs") as socket:
        [served] = world.server.door.admission.sockets()

        def fail() -> None:
            raise RuntimeError("on purpose")

        monkeypatch.setattr(served, "listener", SimpleNamespace(on_end=fail))
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        socket.transport.abort()
        while len(world.server.door.admission):
            await asyncio.sleep(0)
    asyncio.get_running_loop().set_exception_handler(None)


async def test_a_robot_that_the_fleet_fails_to_welcome_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: Any) -> Any:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(world.fleet, "administer", fail)
    async with world.open("robot/r-1") as socket:
        assert (await end_of(socket))[0] == 1011


async def test_a_reason_too_long_for_a_close_frame_is_cut(world: World) -> None:
    async with world.open("live-jobs") as socket:
        [served] = world.server.door.admission.sockets()
        served.close_with(1008, "ü" * 100)
        assert await end_of(socket) == (1008, "ü" * 61)


async def test_a_server_that_goes_away_lets_nobody_in(world: World) -> None:
    world.server.door.drain()
    with pytest.raises(InvalidStatus) as refused:
        await world.open("live-jobs")
    assert refused.value.response.status_code == 503
    assert refused.value.response.headers["retry-after"]


@pytest.mark.parametrize("path", ["live-jobs", "robot/r-1", "nothing-here"])
async def test_a_connection_that_ends_leaves_nothing_for_the_garbage_collector(path: str) -> None:
    gc.collect()
    gc.disable()
    try:
        # Without a token, whose time would keep a bounded number of them for a while.
        async with fresh(jwt_dev_mode=True) as world:
            for end in ("close", "abort", "bad token"):
                with contextlib.suppress(InvalidStatus):
                    socket = await world.open(path, "bad" if end == "bad token" else None)
                    await socket.close() if end == "close" else socket.transport.abort()
                while world.server._server.server_state.connections:
                    await asyncio.sleep(0)
            for _ in range(3):  # the last callbacks of the transport
                await asyncio.sleep(0)
            kinds = {type(one).__name__ for one in gc.get_objects()}
            assert kinds.isdisjoint({"FleetSocket", "FleetHttp", "_Brain", "ServerProtocol"})
    finally:
        gc.enable()
