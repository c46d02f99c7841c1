"""Claims that come too late: admitted before their robot was drained, set aside or deleted."""

from __future__ import annotations

from collections import OrderedDict

from fleet.limits import MS, Limits


class EndedAdmissions:
    """Remembers each robot for `admission_memory_ms`, far longer than a claim is on its way. Bound:
    `max_robots`; then the oldest goes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ended: OrderedDict[str, tuple[int, int]] = OrderedDict()  # robot -> admission, until when

    def __len__(self) -> int:
        return len(self._ended)

    def end_before(self, robot_id: str, admission: int, now_ns: int) -> None:
        self._forget(now_ns)
        known, _ = self._ended.pop(robot_id, (0, 0))
        until_ns = now_ns + self._limits.admission_memory_ms * MS
        self._ended[robot_id] = (max(known, admission), until_ns)
        if len(self._ended) > self._limits.max_robots:
            self._ended.popitem(last=False)

    def too_late(self, robot_id: str, admission: int, now_ns: int) -> bool:
        self._forget(now_ns)
        return admission < self._ended.get(robot_id, (0, 0))[0]

    def _forget(self, now_ns: int) -> None:
        while self._ended and next(iter(self._ended.values()))[1] <= now_ns:
            self._ended.popitem(last=False)
