"""Who is let in: sockets per owner, per address and in all, handshakes a second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from contextlib import AsyncExitStack
from typing import Any

import pytest
from conftest import World, fresh
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from api.admission import Admission
from api.auth import ROLES, Principal
from api.settings import load
from fleet.occupancy import Occupancy


async def refusal(world: World, path: str = "live-jobs", **how: Any) -> Response:
    """The HTTP answer to a handshake that must not succeed."""
    token = how.pop("token", "")
    with pytest.raises(InvalidStatus) as refused:
        async with connect(world.url(path, token), compression=None, **how):
            pass
    return refused.value.response


async def sockets_are(world: World, count: int) -> None:
    """Not by HTTP, whose answers would come from another socket."""
    async with asyncio.timeout(20):
        while len(world.server.door.admission) != count:
            await asyncio.sleep(0)


def told(answer: Response, code: str) -> bool:
    return (
        answer.status_code == 429
        and int(answer.headers["retry-after"]) >= 1
        and answer.headers["content-type"] == "application/problem+json"
        and f'"code":"{code}"'.encode() in bytes(answer.body or b"")
    )


async def test_one_owner_has_so_many_sockets_and_no_more_over_all_endpoints() -> None:
    async with fresh(max_sockets_per_principal=3) as world, AsyncExitStack() as stack:
        token = world.token("viewer")
        for path in ("live-jobs", "robot-status", "metrics/stream"):
            await stack.enter_async_context(world.open(path, token))
        assert told(await refusal(world, "queue-metrics", token=token), "principal_sockets")
        another = world.token("viewer", sub="another")
        async with world.open("live-jobs", another):
            await sockets_are(world, 4)


async def test_operators_may_open_as_many_as_they_like() -> None:
    async with fresh(max_sockets_per_principal=1) as world, AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(world.open("live-jobs", world.token("operator")))


def test_unless_told_otherwise_an_owner_has_100_and_an_address_2000_sockets_and_200_handshakes() -> None:
    settings = load(jwt_secret_key=secrets.token_hex(32))
    assert settings.max_sockets_per_principal == 100
    assert settings.max_sockets_per_address == 2_000
    assert settings.max_handshakes_per_s == 200
    assert not settings.limit_loopback


async def test_a_socket_that_ends_in_any_way_makes_room_for_the_next() -> None:
    async with fresh(max_sockets_per_principal=1) as world:
        token = world.token("viewer")
        for end in ("close", "abort", "reset", "violation"):
            socket = await world.open("live-jobs", token)
            await sockets_are(world, 1)
            if end == "close":
                await socket.close()
            elif end == "abort":
                socket.transport.abort()
            elif end == "reset":
                socket.transport.write(b"\x81")  # half a frame
                socket.transport.abort()
            else:
                socket.transport.write(b"\xff\xff\xff")  # no WebSocket frame at all
            await sockets_are(world, 0)
            await socket.wait_closed()


async def test_one_address_has_so_many_sockets_whatever_a_header_claims() -> None:
    async with fresh(max_sockets_per_address=2, limit_loopback=True) as world, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(world.open("live-jobs"))
        assert told(await refusal(world), "address_sockets")
        forwarded = {"X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3"}
        assert told(await refusal(world, additional_headers=forwarded), "address_sockets")
        async with connect(world.url("live-jobs"), local_addr=("127.0.0.2", 0)):
            await sockets_are(world, 3)


async def test_a_proxy_that_the_settings_name_says_who_its_clients_are() -> None:
    trusted = {"trusted_proxies": ["127.0.0.1"], "limit_loopback": True}
    async with fresh(max_sockets_per_address=1, **trusted) as world, AsyncExitStack() as stack:
        for client in ("10.1.2.3", "10.1.2.4"):
            opening = connect(world.url("live-jobs"), additional_headers={"X-Forwarded-For": client})
            await stack.enter_async_context(opening)
        answer = await refusal(world, additional_headers={"X-Forwarded-For": "10.1.2.4"})
        assert told(answer, "address_sockets")


async def test_who_knocks_too_often_is_refused_and_others_are_not() -> None:
    async with fresh(max_handshakes_per_s=5, limit_loopback=True) as world:
        for _ in range(5):
            async with world.open("live-jobs", "not a token"):  # a bad token counts as well
                pass
        assert told(await refusal(world), "handshakes")
        async with connect(world.url("live-jobs"), local_addr=("127.0.0.2", 0)) as other:
            await other.send("ping")
            assert await other.recv() == "pong"


@pytest.mark.parametrize(
    ("path", "how"),
    [("live-jobs", {"origin": "null"}), ("nothing-here", {}), ("robot/r-1", {"token": "bad"})],
)
async def test_a_handshake_that_is_refused_for_something_else_counts_as_well(path: str, how: Any) -> None:
    async with fresh(max_handshakes_per_s=3, limit_loopback=True) as world:
        for _ in range(3):
            with contextlib.suppress(InvalidStatus):
                async with connect(world.url(path, how.get("token", "")), origin=how.get("origin")):
                    pass
        assert told(await refusal(world), "handshakes")


async def test_connections_that_say_nothing_are_bounded_for_each_address() -> None:
    async with fresh(max_sockets_per_address=10, limit_loopback=True) as world:
        peers = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(60)]
        cut = asyncio.gather(*(reader.read() for reader, _ in peers[27:]), return_exceptions=True)
        assert all(isinstance(end, ConnectionError) or end == b"" for end in await cut)
        assert len(world.server.door.connections) == 27
        async with connect(world.url("live-jobs"), local_addr=("127.0.0.2", 0)) as other:
            await other.send("ping")
            assert await other.recv() == "pong"
        for _, writer in peers:
            writer.transport.abort()
        while len(world.server.door.connections):
            await asyncio.sleep(0)


async def test_this_machine_itself_is_not_limited_unless_the_settings_say_so() -> None:
    async with fresh(max_handshakes_per_s=1, max_sockets_per_address=1) as world, AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(world.open("live-jobs"))


async def test_a_full_server_refuses_until_somebody_leaves() -> None:
    async with fresh(max_sockets=2) as world:
        one, two = await world.open("live-jobs"), await world.open("robot/r-1")
        assert told(await refusal(world), "sockets")
        await one.close()
        await sockets_are(world, 1)
        async with world.open("live-jobs"):
            pass
        await two.close()


async def test_silent_connections_are_closed_and_their_descriptors_come_back() -> None:
    async with fresh(headers_timeout_s=0.3) as world:
        before = len(os.listdir("/proc/self/fd"))
        peers = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(300)]
        for reader, writer in peers:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        while len(os.listdir("/proc/self/fd")) > before + 3:
            await asyncio.sleep(0)
        assert not world.server._server.server_state.connections


def test_who_is_not_limited_is_not_told_to_other_doors() -> None:
    admission = Admission(load(jwt_secret_key=secrets.token_hex(32)))
    viewer, operator = Principal("v", ROLES["viewer"]), Principal("o", ROLES["operator"])
    robot = Principal("robot r", ROLES["viewer"], None, "r", "key-1")
    comers = [(viewer, "10.0.0.1"), (viewer, ""), (operator, "10.0.0.1"), (operator, ""), (robot, "10.0.0.2")]
    for principal, address in comers:
        socket: Any = object()
        admission.enter(socket, principal, address)
    assert admission.held(9) == Occupancy({"v": 2, "key-1": 1}, {"10.0.0.1": 2, "10.0.0.2": 1})
    assert admission.held(1) == Occupancy({"v": 2}, {"10.0.0.1": 2})


def test_ten_thousand_flaps_leave_no_trace() -> None:
    admission = Admission(load(jwt_secret_key=secrets.token_hex(32)))
    viewer, operator = Principal("v", ROLES["viewer"]), Principal("o", ROLES["operator"])
    for number in range(10_000):
        socket: Any = object()
        admission.enter(socket, viewer if number % 2 else operator, f"10.0.{number % 200}.1")
        admission.leave(socket)
        admission.leave(socket)  # twice changes nothing
    assert len(admission) == 0
    assert not admission._of_principal
    assert not admission._of_address


async def test_a_herd_that_comes_back_at_once_is_let_in_and_others_are_served_meanwhile(
    world: World,
) -> None:
    async def join() -> None:
        async with world.open("queue-metrics") as socket:
            assert "depth" in await asyncio.wait_for(socket.recv(), 20)  # one message, whatever was missed

    herd = asyncio.ensure_future(asyncio.gather(*(join() for _ in range(200))))
    served = 0
    async with world.http() as http:
        while not herd.done():
            served += (await http.post("/jobs", json={"name": "n"})).status_code == 201
    await herd
    assert served > 0
    await sockets_are(world, 0)
