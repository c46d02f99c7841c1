"""One call in flight; what arrives meanwhile forms the next batch."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from fleet import errors
from fleet.errors import Busy, FleetError, Unavailable
from fleet.messages import Refusal

log = logging.getLogger("fleetcast.batching")

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


def _ours(error: Exception) -> FleetError:
    if isinstance(error, FleetError):
        return error
    log.error("a batch failed", exc_info=error)
    return Unavailable("the fleet failed on this request", "failed", 1.0)


class Batcher(Generic[Item, Result]):
    """Puts items into batches for `handle`, which returns one outcome per item, in order: a result, an
    exception, or `WAIT` when it will resolve that item's future itself. Bound: `max_backlog`, then Busy.
    """

    WAIT = object()

    def __init__(
        self,
        handle: Callable[[Sequence[Item], Sequence[asyncio.Future[Result]]], Awaitable[Sequence[Any]]],
        max_batch: int,
        max_backlog: int,
    ) -> None:
        self._handle = handle
        self._max_batch = max_batch
        self._max_backlog = max_backlog
        self._backlog: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def put(self, item: Item) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        if len(self._backlog) >= self._max_backlog:
            future.set_exception(Busy("too many requests wait for the fleet", "overloaded", 1.0))
            return future
        self._backlog.append((item, future))
        if self._runner is None:
            self._runner = loop.create_task(self._run())
        return future

    async def _run(self) -> None:
        try:
            while self._backlog:
                count = min(self._max_batch, len(self._backlog))
                batch = [self._backlog.popleft() for _ in range(count)]
                await self._send([item for item, _ in batch], [future for _, future in batch])
        finally:
            self._runner = None

    async def _send(self, items: list[Item], futures: list[asyncio.Future[Result]]) -> None:
        try:
            outcomes = await self._handle(items, futures)
        except asyncio.CancelledError:
            outcomes = [CLOSING] * len(items)
            self._settle(futures, outcomes)
            raise
        except Exception as error:
            outcomes = [_ours(error)] * len(items)
        self._settle(futures, outcomes)

    def _settle(self, futures: list[asyncio.Future[Result]], outcomes: Sequence[Any]) -> None:
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.done() or outcome is self.WAIT:
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
                future.exception()  # marks it as seen: a caller that left is no error
            else:
                future.set_result(outcome)

    async def close(self) -> None:
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        left = [future for _, future in self._backlog]
        self._backlog.clear()
        self._settle(left, [CLOSING] * len(left))
