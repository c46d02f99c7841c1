"""How long callers wait for an actor that gives no answer. Time is the loop's own, and jumps."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.batching import Batcher
from actors.ray_room import HURRY_S, RETRY_FOR_S, RayRoom
from actors.wire import Reachable
from fleet.errors import Busy, Overloaded, Unavailable


class JumpingLoop(asyncio.SelectorEventLoop):
    """Sleeps no second of what it waits for."""

    def __init__(self) -> None:
        super().__init__(_Selector(self))
        self.now = 1_000.0

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            self._loop.now += timeout or 0.0
        return ready


class Actor:
    """Answers to what it likes; the rest hangs."""

    def __init__(self) -> None:
        self.answers = False

    def __getattr__(self, method: str) -> Actor:
        return self

    async def remote(self, *args: Any) -> str:
        if not self.answers:
            await asyncio.Event().wait()
        return "here"


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    actor = Actor()
    monkeypatch.setattr("ray.get_actor", lambda name, namespace: actor)
    return actor


async def took_s(call: Callable[[], Awaitable[Any]]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unavailable):
        await call()
    return round(loop.time() - began, 3)


def run(test: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(test())  # type: ignore[arg-type]


def test_who_waited_behind_a_call_that_hung_is_not_kept_as_long_again(actor: Actor) -> None:
    async def test() -> None:
        room = RayRoom("name", "namespace")
        actor.answers = True
        await room.execute()
        actor.answers = False
        assert await took_s(lambda: room.execute()) == RETRY_FOR_S
        assert await took_s(lambda: room.execute()) == HURRY_S

    run(test)


def test_a_long_poll_is_given_its_time_at_all_times(actor: Actor) -> None:
    async def test() -> None:
        room = RayRoom("name", "namespace")
        assert [await took_s(lambda: room.read()) for _ in range(3)] == [RETRY_FOR_S] * 3

    run(test)


def test_an_actor_that_answers_again_is_given_its_time_again(actor: Actor) -> None:
    async def test() -> None:
        room = RayRoom("name", "namespace")
        await took_s(lambda: room.execute())
        actor.answers = True
        assert await room.execute() == "here"
        actor.answers = False
        assert await took_s(lambda: room.execute()) == RETRY_FOR_S

    run(test)


def test_one_call_of_many_that_hangs_makes_nobody_hurry(actor: Actor) -> None:
    async def test() -> None:
        room = RayRoom("name", "namespace")
        hanging = asyncio.ensure_future(took_s(lambda: room.page()))
        await asyncio.sleep(RETRY_FOR_S / 2)
        actor.answers = True
        await room.page()
        actor.answers = False
        assert await hanging == RETRY_FOR_S
        assert await took_s(lambda: room.page()) == RETRY_FOR_S

    run(test)


def test_who_waited_for_the_batch_before_waits_as_long_in_all_as_others(actor: Actor) -> None:
    """Also where the room answered others meanwhile, or answers the batch before at the last moment."""

    async def test() -> None:
        room = RayRoom("name", "namespace")
        batcher: Batcher[str, Any] = Batcher(lambda items: room.page(items), 10, 100)
        first = asyncio.ensure_future(took_s(lambda: batcher.put("first")))
        await asyncio.sleep(HURRY_S)
        behind = asyncio.ensure_future(took_s(lambda: batcher.put("behind")))
        await asyncio.sleep(HURRY_S)
        actor.answers = True
        await room.page()
        actor.answers = False
        assert await first == RETRY_FOR_S
        assert await behind == RETRY_FOR_S
        actor.answers = True
        await room.page()
        actor.answers = False
        assert await took_s(lambda: batcher.put("later")) == RETRY_FOR_S

    run(test)


def test_who_waited_for_all_of_its_time_is_still_asked_for_once(actor: Actor) -> None:
    async def test() -> None:
        answered = asyncio.Event()

        async def late(items: Any) -> Any:
            if "first" in items:
                await answered.wait()
                return ["there"]
            return await RayRoom("name", "namespace").execute(items)

        batcher: Batcher[str, Any] = Batcher(late, 10, 100)
        first = batcher.put("first")
        await asyncio.sleep(HURRY_S)
        behind = asyncio.ensure_future(took_s(lambda: batcher.put("behind")))
        await asyncio.sleep(2 * RETRY_FOR_S)
        answered.set()
        assert await first == "there"
        assert await behind == 2 * RETRY_FOR_S + HURRY_S

    run(test)


class Wired(Reachable):
    """What comes by wire is answered as soon as it may be, or refused from some call on."""

    def __init__(self) -> None:
        self.entered = 0
        self.go = asyncio.Event()
        self.busy_from = 0

    async def execute(self) -> str:
        self.entered += 1
        if 0 < self.busy_from <= self.entered:
            raise Overloaded("too much", "", 1.0)
        await self.go.wait()
        return "by wire"


class WiredActor(Actor):
    """What comes by Ray hangs, but for the question where its wire is."""

    def __init__(self, room: Wired) -> None:
        super().__init__()
        self.room = room
        self.asked = 0
        self.tells = asyncio.Event()
        self.tells.set()

    @property
    def address(self) -> Actor:
        self.asked += 1
        return _Found(self)


class _Found(Actor):
    def __init__(self, wired: WiredActor) -> None:
        super().__init__()
        self._wired = wired

    async def remote(self, *args: Any) -> str:
        await self._wired.tells.wait()
        return await self._wired.room.address()


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> WiredActor:
    actor = WiredActor(Wired())
    monkeypatch.setattr("ray.get_actor", lambda name, namespace: actor)
    return actor


async def over(room: RayRoom, wired: WiredActor) -> None:
    room.close_wire()
    await wired.room.close_entrance()


def test_a_call_by_ray_that_hangs_takes_none_of_those_by_wire_with_it(wired: WiredActor) -> None:
    async def test() -> None:
        room = RayRoom("name", "namespace")
        hanging = asyncio.ensure_future(took_s(lambda: room.page()))
        await asyncio.sleep(RETRY_FOR_S / 2)
        going = asyncio.ensure_future(room.execute())
        assert await hanging == RETRY_FOR_S
        await asyncio.sleep(RETRY_FOR_S / 4)
        wired.room.go.set()
        assert await going == "by wire"
        assert (wired.room.entered, wired.asked) == (1, 1)
        await over(room, wired)

    run(test)


def test_a_call_from_another_loop_that_hangs_leaves_the_wire_alone(wired: WiredActor) -> None:
    """A wire must not be touched but by the thread of its loop."""

    async def test() -> None:
        room = RayRoom("name", "namespace")
        wired.room.go.set()
        assert await room.execute() == "by wire"

        async def elsewhere() -> None:
            assert await took_s(lambda: room.execute()) == RETRY_FOR_S

        await asyncio.to_thread(run, elsewhere)
        assert await room.execute() == "by wire"
        assert wired.asked == 1
        await over(room, wired)

    run(test)


def test_who_goes_while_a_wire_is_being_laid_has_none(wired: WiredActor) -> None:
    async def test() -> None:
        room = RayRoom("name", "namespace")
        wired.tells.clear()
        wired.room.go.set()
        going = asyncio.ensure_future(took_s(lambda: room.execute()))
        await asyncio.sleep(RETRY_FOR_S / 2)
        room.close_wire()
        wired.tells.set()
        assert await going == RETRY_FOR_S  # by Ray, which hangs
        assert wired.room.entered == 0
        await wired.room.close_entrance()

    run(test)


def test_a_refusal_of_a_call_that_may_have_been_carried_out_before_does_not_say_that_it_was_not(
    wired: WiredActor,
) -> None:
    async def test() -> None:
        room = RayRoom("name", "namespace")
        wired.room.busy_from = 2
        going = asyncio.ensure_future(room.execute())
        await asyncio.sleep(RETRY_FOR_S / 2)
        room._hang_up()  # as a lost connection is
        with pytest.raises(Unavailable):
            await going
        with pytest.raises(Busy):
            await room.execute()
        wired.room.go.set()
        await over(room, wired)

    run(test)
