"""Calls to a room by a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from actors.wire import MAX_CALLS, Lost, Reachable, Wire, connect
from fleet.errors import Busy, Conflict, Unavailable

ANSWER_BYTES = 10_000
CALLS = 3_000


class Room(Reachable):
    def __init__(self) -> None:
        self.entered = 0
        self.given = 0
        self.go = asyncio.Event()

    async def echo(self, said: bytes, *more: object) -> tuple[bytes, int]:
        return said, len(more)

    async def wait(self) -> str:
        self.entered += 1
        await self.go.wait()
        return "gone on"

    async def give(self, size: int, *_: object) -> bytes:
        self.given += 1
        return b"x" * size

    async def refuse(self) -> None:
        raise Conflict("it is taken", "taken", 2.0)

    async def unsendable(self) -> object:
        return lambda: None

    async def break_down(self) -> None:
        raise ZeroDivisionError


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    await room.address()
    yield room
    room.go.set()
    await room.close_entrance()


@pytest.fixture
async def wire(room: Room) -> AsyncIterator[Wire]:
    wire = await connect(await room.address())
    assert wire is not None
    yield wire
    wire.close()


async def entered(room: Room, calls: int) -> None:
    async with asyncio.timeout(10):
        while room.entered < calls:
            await asyncio.sleep(0)


@pytest.mark.parametrize("size", [0, 1, 65_536, 5_000_000])
async def test_what_is_said_arrives_whole_and_so_does_the_answer(wire: Wire, size: int) -> None:
    said = b"x" * size
    assert await wire.call("echo", (said, 1, None)) == (said, 2)


async def test_answers_find_their_calls_in_whatever_order(room: Room, wire: Wire) -> None:
    slow = asyncio.ensure_future(wire.call("wait", ()))
    quick = [wire.call("echo", (b"%d" % n,)) for n in range(200)]
    assert await asyncio.gather(*quick) == [(b"%d" % n, 0) for n in range(200)]
    assert not slow.done()
    room.go.set()
    assert await slow == "gone on"


async def test_a_refusal_arrives_as_itself_and_a_failure_as_one_of_the_fleet(wire: Wire) -> None:
    with pytest.raises(Conflict) as refused:
        await wire.call("refuse", ())
    assert (refused.value.detail, refused.value.code, refused.value.retry_after_s) == (
        "it is taken",
        "taken",
        2.0,
    )
    for broken in ("break_down", "no_such_method"):
        with pytest.raises(Unavailable) as failed:
            await wire.call(broken, ())
        assert failed.value.code == "failed"
    assert await wire.call("echo", (b"still here",)) == (b"still here", 0)


async def test_who_left_is_not_waited_for(room: Room, wire: Wire) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wire.call("wait", ())
    room.go.set()
    assert await wire.call("echo", (b"on",)) == (b"on", 0)


async def test_the_end_of_a_connection_is_told_to_all_who_wait(room: Room, wire: Wire) -> None:
    waiting = [asyncio.ensure_future(wire.call("wait", ())) for _ in range(3)]
    await entered(room, 3)
    wire.close()
    assert [type(end) for end in await asyncio.gather(*waiting, return_exceptions=True)] == [Lost] * 3
    with pytest.raises(Lost):
        await wire.call("echo", (b"too late",))


async def test_a_call_goes_on_when_its_caller_is_gone(room: Room, wire: Wire) -> None:
    waiting = asyncio.ensure_future(wire.call("wait", ()))
    await entered(room, 1)
    wire.close()
    with pytest.raises(Lost):
        await waiting
    again = await connect(await room.address())
    assert again is not None
    room.go.set()
    assert await again.call("wait", ()) == "gone on"
    assert room.entered == 2
    again.close()


async def test_a_caller_with_too_many_calls_is_told_so(room: Room, wire: Wire) -> None:
    waiting = [asyncio.ensure_future(wire.call("wait", ())) for _ in range(MAX_CALLS)]
    await entered(room, MAX_CALLS)
    with pytest.raises(Busy):
        await wire.call("echo", (b"one more",))
    room.go.set()
    assert await asyncio.gather(*waiting) == ["gone on"] * MAX_CALLS
    assert await wire.call("echo", (b"now",)) == (b"now", 0)


async def test_all_who_ask_at_once_are_told_the_same_address(wire: Wire) -> None:
    other = Room()
    addresses = await asyncio.gather(*(other.address() for _ in range(3)))
    assert len(set(addresses)) == 1
    wires = [await connect(address) for address in addresses]
    assert [await each.call("echo", (b"x",)) for each in wires if each] == [(b"x", 0)] * 3
    for each in wires:
        if each is not None:
            each.close()
    await other.close_entrance()


async def test_what_cannot_be_sent_back_is_a_failure_of_the_fleet(wire: Wire) -> None:
    with pytest.raises(Unavailable):
        await wire.call("unsendable", ())


@pytest.mark.parametrize("address", ["", "\0fleetcast-nobody", "no-such-file"])
async def test_where_nobody_is_there_is_no_wire(address: str) -> None:
    assert await connect(address) is None


async def test_who_does_not_read_what_is_answered_is_not_heard_either(room: Room, wire: Wire) -> None:
    """What waits for it is bounded: by the calls of one read."""
    deaf = await connect(await room.address())
    assert deaf is not None
    deaf.transport.pause_reading()
    calls = [asyncio.ensure_future(deaf.call("give", (ANSWER_BYTES,))) for _ in range(CALLS)]
    for number in range(2 * CALLS):
        assert await wire.call("echo", (b"%d" % number,)) == (b"%d" % number, 0)
    assert room.given <= MAX_CALLS
    deaf.transport.resume_reading()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {answer for answer in answers if not isinstance(answer, Busy)} == {b"x" * ANSWER_BYTES}
    assert room.given > MAX_CALLS
    deaf.close()


async def test_what_is_too_large_for_one_message_is_refused_on_its_own(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.wire.MAX_BYTES", 1_000)
    with pytest.raises(Busy):
        await wire.call("echo", (b"x" * 1_000,))
    with pytest.raises(Unavailable):  # and not Busy: it was carried out
        await wire.call("give", (1_000,))
    assert await wire.call("echo", (b"on",)) == (b"on", 0)


@pytest.mark.parametrize("said", [b"\xff" * 100, b"\x04\0\0\0none"])
async def test_who_makes_no_sense_is_hung_up_on_and_nobody_else(
    room: Room, wire: Wire, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_unix_connection(await room.address())
    writer.write(said)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert caplog.records
    assert await wire.call("echo", (b"on",)) == (b"on", 0)
