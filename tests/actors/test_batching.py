"""Batches: what waits while one is under way, and what becomes of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import pytest

from actors.batching import Batcher
from actors.health import LIVES, Lives
from fleet.errors import Busy, Unavailable


class Held:
    """A handler whose first batch stays under way until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, int]]] = []
        self.go = asyncio.Event()
        self.under_way = asyncio.Event()

    async def __call__(self, items: Sequence[tuple[str, int]]) -> list[Any]:
        self.batches.append(list(items))
        self.under_way.set()
        await self.go.wait()
        return [number if number else Unavailable("away") for _, number in items]


def conflating(held: Held) -> Batcher[tuple[str, int], int]:
    return Batcher(held, 10, 100, conflate=lambda item: item[0])


async def test_while_a_batch_is_stalled_only_the_newest_of_each_key_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.batching.STALLED_S", 0.0)
    held = Held()
    batcher = conflating(held)
    first = batcher.put(("r1", 1))
    await held.under_way.wait()
    waiting = [batcher.put(item) for item in [("r1", 2), ("r2", 3), ("r1", 4), ("r1", 5)]]
    held.go.set()
    assert await asyncio.gather(first, *waiting) == [1, 5, 3, 5, 5]
    assert held.batches == [[("r1", 1)], [("r1", 5), ("r2", 3)]]


async def test_in_good_times_every_item_is_sent() -> None:
    held = Held()
    batcher = conflating(held)
    first = batcher.put(("r1", 1))
    await held.under_way.wait()
    waiting = [batcher.put(("r1", number)) for number in (2, 3)]
    held.go.set()
    assert await asyncio.gather(first, *waiting) == [1, 2, 3]
    assert held.batches[1] == [("r1", 2), ("r1", 3)]


async def test_what_comes_at_once_after_a_long_rest_is_all_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    held = Held()
    held.go.set()
    batcher = conflating(held)
    assert await batcher.put(("r1", 1)) == 1
    rested = loop.time() + 3_600
    monkeypatch.setattr(loop, "time", lambda: rested)
    waiting = [batcher.put(("r1", number)) for number in (2, 3)]
    monkeypatch.undo()
    assert await asyncio.gather(*waiting) == [2, 3]


async def test_those_whose_item_was_conflated_learn_of_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.batching.STALLED_S", 0.0)
    held = Held()
    batcher = conflating(held)
    batcher.put(("r0", 1))
    await held.under_way.wait()
    older, newer = batcher.put(("r1", 2)), batcher.put(("r1", 0))
    held.go.set()
    assert [type(e) for e in await asyncio.gather(older, newer, return_exceptions=True)] == [Unavailable] * 2


async def test_one_whose_sender_left_does_not_take_a_newer_one_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.batching.STALLED_S", 0.0)
    held = Held()
    batcher = conflating(held)
    batcher.put(("r0", 1))
    await held.under_way.wait()
    older = batcher.put(("r1", 2))
    older.cancel()
    newer = batcher.put(("r1", 3))
    held.go.set()
    assert await newer == 3


def lives() -> Lives:
    async def pulse() -> str:
        raise Unavailable("away")

    return Lives(pulse)


async def test_a_room_that_does_not_answer_is_down_until_it_does() -> None:
    room = lives()
    assert room.state(0.0) == "ok"
    await room.feel()
    assert room.state(1.0) == "down"
    room.note("a", 2.0)
    assert room.state(2.0) == "ok"


def test_a_room_that_begins_anew_again_and_again_is_in_a_crash_loop_until_it_stays() -> None:
    room = lives()
    for number in range(LIVES + 1):
        assert room.state(number) == "ok"
        room.note(f"life {number}", float(number))
    assert room.state(LIVES) == "crash_loop"
    assert room.state(60.9) == "crash_loop"
    assert room.state(61.1) == "ok"


async def test_a_sender_that_leaves_takes_nobody_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.batching.STALLED_S", 0.0)
    held = Held()
    batcher = conflating(held)
    batcher.put(("r1", 1))
    await held.under_way.wait()
    left, stayed = batcher.put(("r1", 2)), batcher.put(("r1", 3))
    left.cancel()
    with pytest.raises(Unavailable) as told:
        await stayed
    assert told.value.retry_after_s == 1.0


async def test_what_comes_after_the_end_is_answered_too() -> None:
    """The end came before the first batch had begun."""
    held = Held()
    held.go.set()
    batcher = conflating(held)
    early = batcher.put(("r1", 1))
    await batcher.close()
    with pytest.raises(Unavailable):
        await early
    assert await asyncio.wait_for(batcher.put(("r1", 2)), 10) == 2


async def test_a_refusal_that_nobody_waits_for_is_no_error() -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    held = Held()
    batcher: Batcher[tuple[str, int], int] = Batcher(held, 10, 1)
    batcher.put(("r1", 1))
    with pytest.raises(Busy):
        await batcher.put(("r1", 2))
    batcher.put(("r1", 3))
    gc.collect()
    assert told == []
    held.go.set()
    await batcher.close()
