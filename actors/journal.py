"""The durable log behind a room: nothing is answered, announced or assigned before it is committed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

log = logging.getLogger("fleetcast.journal")


class Journal(Protocol):
    """Written by one room. `append` is synchronous, so that deciding and recording know no await;
    `committed` returns once everything up to that number is safe, and raises if it never will be. Those
    who wait go on in the order in which they came."""

    def append(self, records: Sequence[Any]) -> int: ...

    async def committed(self, number: int) -> None: ...


class MemoryJournal:
    """Commits at once and survives nothing. `announce` gets the records in order, after their commit."""

    def __init__(self, announce: Callable[[Sequence[Any]], None]) -> None:
        self._announce = announce
        self._count = 0

    def append(self, records: Sequence[Any]) -> int:
        self._count += len(records)
        if records:
            self._announce(records)
        return self._count

    async def committed(self, number: int) -> None:
        return None


async def commit(journal: Journal, records: Sequence[Any]) -> None:
    """Returns when all that was decided so far is safe. A failed commit ends the process: carrying on
    would promise what was not written."""
    try:
        await journal.committed(journal.append(records))
    except Exception:
        log.critical("the journal failed; this actor exits", exc_info=True)
        os._exit(1)
