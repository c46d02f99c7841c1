"""Group commit behind a room: nothing is answered, announced or assigned before it is committed."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from actors import failpoints

log = logging.getLogger("fleetcast.journal")


class Store(Protocol):
    """Where records go. `write` is one transaction: it returns once all of them are safe, and raises if they
    never will be. `blocking` ones are called in a thread."""

    blocking: bool

    def write(self, records: Sequence[Any]) -> None: ...

    def close(self) -> None: ...


class JournalFailed(Exception):
    """A commit failed: of what was decided since, nothing may be promised, and nothing more is written."""


class Journal:
    """Written by one room. What arrives while a commit is under way shares the next. `announce` gets the
    records in order, after their commit and before those who wait for it go on, in the order in which they
    came. Bound: the room refuses commands while `backlog` is too long. The first failure is the last:
    whoever waits, appends or waits later gets JournalFailed."""

    def __init__(self, store: Store, announce: Callable[[Sequence[Any]], None]) -> None:
        self._store = store
        self._announce = announce
        self._thread = ThreadPoolExecutor(1, "journal") if store.blocking else None
        self._pending: list[Any] = []
        self._next: asyncio.Future[None] | None = None
        self._last: asyncio.Future[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._acts: deque[tuple[asyncio.Future[None], Callable[[], None]]] = deque()
        self._failed: JournalFailed | None = None
        self.backlog = 0

    def append(self, records: Sequence[Any]) -> None:
        """Synchronous, so that deciding and recording know no await."""
        self._check()
        if not records:
            return
        if self._thread is None:
            self._store.write(records)
            self._announce(records)
            return
        self._pending += records
        self.backlog += len(records)
        loop = asyncio.get_running_loop()
        if self._next is None:
            self._next = self._last = loop.create_future()
        if self._runner is None:
            self._runner = loop.create_task(self._run())

    def when_committed(self, act: Callable[[], None]) -> None:
        """As soon as all that was appended so far is safe, in the order of these calls: at once, if it is.
        Who waits and then acts may be overtaken by one who comes when there is nothing to wait for."""
        self._check()
        if self._last is None:
            act()
        else:
            self._acts.append((self._last, act))

    async def committed(self) -> None:
        """Waits for all that was appended so far."""
        self._check()
        if self._last is not None:
            await asyncio.shield(self._last)

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    async def run(self, work: Callable[[], Any]) -> Any:
        """Between two commits, where commits are made: for work of the store on itself."""
        self._check()
        if self._thread is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _run(self) -> None:
        try:
            while self._pending and self._failed is None:
                await self._commit()
        finally:
            self._runner = None

    async def _commit(self) -> None:
        batch, self._pending = self._pending, []
        done, self._next = self._next, None
        assert done is not None
        try:
            failpoints.hit(failpoints.BEFORE_APPEND)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.write, batch)
            failpoints.hit(failpoints.AFTER_FSYNC)
            self.backlog -= len(batch)
            self._announce(batch)
            while self._acts and self._acts[0][0] is done:
                self._acts.popleft()[1]()
        except Exception as error:
            self._fail(done, error)
            return
        if self._last is done:
            self._last = None
        done.set_result(None)

    def _fail(self, done: asyncio.Future[None], error: Exception) -> None:
        """Also those fail who wait for the commit after: it would stand on what was not written."""
        self._failed = JournalFailed(str(error))
        self._failed.__cause__ = error
        for waiting in (done, self._next):
            if waiting is not None:
                waiting.set_exception(self._failed)
                waiting.exception()  # marks it as seen: perhaps nobody waits

    async def close(self) -> None:
        """What was appended is committed first."""
        if self._runner is not None:
            await asyncio.gather(self._runner, return_exceptions=True)
        if self._thread is not None:
            self._thread.shutdown()
        self._store.close()


async def commit(journal: Journal, records: Sequence[Any], then: Callable[[], None] | None = None) -> None:
    """Returns when all that was decided so far is safe; `then` is called before, in the order of decisions. A
    failed commit ends the process: carrying on would promise what was not written, and trying again what may
    not be asked twice of a disk."""
    try:
        journal.append(records)
        if then is not None:
            journal.when_committed(then)
        await journal.committed()
    except Exception:
        log.critical("the journal failed; this actor exits", exc_info=True)
        os._exit(1)
