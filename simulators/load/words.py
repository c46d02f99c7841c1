"""What an actor has to tell the conductor, kept until it was fetched: a fetch whose answer was lost is made
again."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Generic, TypeVar

Word = TypeVar("Word")
MOST = 1_000_000
PAGE = 20_000


class Words(Generic[Word]):
    """Bound: `MOST` wait; the oldest go first, and are counted."""

    def __init__(self) -> None:
        self._waiting: deque[Word] = deque()
        self._first = 0
        self.dropped = 0

    def add(self, word: Word) -> None:
        if len(self._waiting) >= MOST:
            self._waiting.popleft()
            self._first += 1
            self.dropped += 1
        self._waiting.append(word)

    def since(self, cursor: int) -> list[Word]:
        """At most `PAGE` from `cursor` on, which says that those before it arrived."""
        while self._waiting and self._first < cursor:
            self._waiting.popleft()
            self._first += 1
        return list(islice(self._waiting, PAGE))
