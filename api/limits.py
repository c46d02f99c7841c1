"""What one client may do: how often it may speak, and from which pages it may come."""

from __future__ import annotations

from enum import Enum, auto

from starlette.websockets import WebSocket


class Verdict(Enum):
    HEAR = auto()
    IGNORE = auto()
    CLOSE = auto()


class InboundRate:
    """More than `per_s` messages a second on average, kept up for `patience_s`, ends a socket; until then
    what is beyond the rate is ignored. A run of excess ends when its average falls below the rate. Who has
    sent at once what would be too much for all of that time need not be waited for."""

    __slots__ = ("_count", "_patience_s", "_per_s", "_since")

    def __init__(self, per_s: float, patience_s: float) -> None:
        self._per_s = per_s
        self._patience_s = patience_s
        self._since = 0.0
        self._count = 0

    def judge(self, now: float, messages: int = 1) -> Verdict:
        """Of messages that came together at `now` (seconds, monotonic)."""
        age_s = now - self._since
        if self._count <= self._per_s * age_s:
            self._since, self._count = now, messages
            return Verdict.HEAR if messages <= self._per_s * (1 + self._patience_s) else Verdict.CLOSE
        self._count += messages
        if age_s >= self._patience_s or self._count > self._per_s * (1 + self._patience_s):
            return Verdict.CLOSE
        return Verdict.HEAR if self._count <= self._per_s * (1 + age_s) else Verdict.IGNORE


def may_come_from(websocket: WebSocket, allowed: list[str]) -> bool:
    """A browser names the page's origin: our own host's, or one that the settings allow. Other clients
    name none."""
    origin = websocket.headers.get("origin")
    host = websocket.headers.get("host", "")
    return origin is None or origin in (f"http://{host}", f"https://{host}", *allowed)
