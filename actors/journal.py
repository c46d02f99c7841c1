"""The durable log behind a room: nothing is answered, announced or assigned before it is committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Journal(Protocol):
    """Written by one room. `append` is synchronous, so that deciding and recording know no await;
    `committed` returns once everything up to that number is safe, and raises if it never will be."""

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
