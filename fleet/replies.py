"""First replies, kept for senders that did not hear them and ask again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class Replies:
    """Of the newest `bound` requests that were carried out; a sender repeats itself within seconds."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, request_id: str, reply: Any) -> None:
        self._kept[request_id] = reply
        if len(self._kept) > self._bound:
            self._kept.popitem(last=False)

    def once(self, request_id: str, act: Callable[[], Any]) -> Any:
        """What `act` returns, or what it returned the first time. A refusal (it raises) changed nothing and
        is not kept; without a `request_id` nothing is."""
        if request_id in self._kept:
            return self._kept[request_id]
        reply = act()
        if request_id:
            self.keep(request_id, reply)
        return reply
