"""One call in flight; what arrives meanwhile forms the next batch."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from fleet import errors
from fleet.errors import FleetError, Overloaded, Unavailable
from fleet.messages import Refusal

log = logging.getLogger("fleetcast.batching")

STALLED_S = 1.0
# When the oldest of the batch under way was asked for, by the loop's clock: what it waited here is part of
# the time that its caller has.
ASKED_AT: ContextVar[float | None] = ContextVar("asked_at", default=None)

Item = TypeVar("Item")
Result = TypeVar("Result")


def refusal_of(error: Exception) -> Refusal:
    """The reply to the one command of a batch that failed; the others are not its victims."""
    if isinstance(error, FleetError):
        return Refusal(type(error).__name__, error.detail, error.code, error.retry_after_s)
    log.error("a command failed", exc_info=error)
    return Refusal("Unavailable", "the fleet failed on this request", "failed", 1.0)


def outcome_of(reply: Any) -> Any:
    """The inverse: a refusal becomes the error that it names; everything else stays."""
    if not isinstance(reply, Refusal):
        return reply
    kind: type[FleetError] = getattr(errors, reply.kind)
    return kind(reply.detail, reply.code, reply.retry_after_s)


CLOSING = Unavailable("the server is going away", "", 1.0)
GIVEN_UP = Unavailable("this request went with another, whose sender left", "", 1.0)


def _ours(error: Exception) -> FleetError:
    if isinstance(error, FleetError):
        return error
    log.error("a batch failed", exc_info=error)
    return Unavailable("the fleet failed on this request", "failed", 1.0)


@dataclass(slots=True)
class _Slot(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result]
    asked_at: float


def _pass_on(to: asyncio.Future[Any], done: asyncio.Future[Any]) -> None:
    if to.done():
        return
    if done.cancelled():
        to.set_exception(GIVEN_UP)
        to.exception()
    elif error := done.exception():
        to.set_exception(error)
        to.exception()
    else:
        to.set_result(done.result())


class Batcher(Generic[Item, Result]):
    """Puts items into batches for `handle`, which returns one outcome per item, in order: a result or an
    exception. Bound: `max_backlog`, then Overloaded.

    With `conflate` (the key of an item), once a batch takes longer than `STALLED_S`, the newest item of a key
    takes the place of one that waits, and both get its outcome: a fleet that did not answer for a while finds
    what is, not all that was.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[Item]], Awaitable[Sequence[Any]]],
        max_batch: int,
        max_backlog: int,
        conflate: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self._conflate = conflate
        self._waiting: dict[Hashable, _Slot[Item, Result]] = {}
        self._sent_at = 0.0
        self._handle = handle
        self._max_batch = max_batch
        self._max_backlog = max_backlog
        self._backlog: deque[_Slot[Item, Result]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def put(self, item: Item) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        older = self._older(item, loop.time()) if self._conflate else None
        if older is not None:
            older.future.add_done_callback(partial(_pass_on, future))
            older.item = item
            return future
        if len(self._backlog) >= self._max_backlog:
            future.set_exception(Overloaded("too many requests wait for the fleet", "", 1.0))
            future.exception()  # marks it as seen: perhaps nobody waits
            return future
        slot = _Slot(item, future, loop.time())
        self._backlog.append(slot)
        if self._conflate is not None:
            self._waiting[self._conflate(item)] = slot
        if self._runner is None:
            self._sent_at = loop.time()  # the batch that the next turn of the loop sends is not stalled yet
            self._runner = loop.create_task(self._run())
        return future

    def _older(self, item: Item, now: float) -> _Slot[Item, Result] | None:
        """Of the same key, in the backlog, while the batch under way is stalled."""
        assert self._conflate is not None
        if self._runner is None or now - self._sent_at < STALLED_S:
            return None
        older = self._waiting.get(self._conflate(item))
        return None if older is None or older.future.done() else older

    async def _run(self) -> None:
        try:
            while self._backlog:
                count = min(self._max_batch, len(self._backlog))
                batch = [self._backlog.popleft() for _ in range(count)]
                self._sent_at = asyncio.get_running_loop().time()
                if self._conflate is not None:
                    for slot in batch:
                        self._waiting.pop(self._conflate(slot.item), None)
                ASKED_AT.set(batch[0].asked_at)
                await self._send([slot.item for slot in batch], [slot.future for slot in batch])
        finally:
            self._runner = None

    async def _send(self, items: list[Item], futures: list[asyncio.Future[Result]]) -> None:
        try:
            outcomes = await self._handle(items)
        except asyncio.CancelledError:
            outcomes = [CLOSING] * len(items)
            self._settle(futures, outcomes)
            raise
        except Exception as error:
            outcomes = [_ours(error)] * len(items)
        self._settle(futures, outcomes)

    def _settle(self, futures: list[asyncio.Future[Result]], outcomes: Sequence[Any]) -> None:
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
                future.exception()  # marks it as seen: a caller that left is no error
            else:
                future.set_result(outcome)

    async def close(self) -> None:
        runner = self._runner
        if runner is not None:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
            if self._runner is runner:
                self._runner = None  # it had not begun, and did not say that it ended
        left = [slot.future for slot in self._backlog]
        self._backlog.clear()
        self._settle(left, [CLOSING] * len(left))
