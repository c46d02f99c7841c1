"""Ids that their senders may repeat."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class KnownIds:
    """The newest `bound` of them."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, sent: str) -> bool:
        return sent in self._ids

    def add(self, sent: str) -> None:
        self._ids[sent] = None
        if len(self._ids) > self._bound:
            self._ids.popitem(last=False)

    def update(self, ids: Iterable[str]) -> None:
        for sent in ids:
            self.add(sent)
