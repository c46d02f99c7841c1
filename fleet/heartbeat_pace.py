"""How often robots beat: as seldom as it takes to keep the whole fleet within its heartbeats per second."""

from __future__ import annotations

from fleet.limits import Limits


class HeartbeatPace:
    """The interval that robots are told, by how many of them are not offline.

    It moves in strides, so that robots which come and go do not change it for all: when it is too short for
    the fleet it becomes a quarter longer than needed, and it stays until it is 1.6 times what is needed.
    Never below `heartbeat_interval_ms`, never above `max_heartbeat_interval_ms`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.interval_ms = limits.heartbeat_interval_ms

    def adapt(self, robots: int) -> None:
        needed_ms = -(-robots * 1_000 // self._limits.max_heartbeats_per_s)
        if not needed_ms <= self.interval_ms <= needed_ms * 8 // 5:
            self.interval_ms = self._bounded(needed_ms * 5 // 4)

    def resume(self, interval_ms: int, robots: int) -> None:
        """After a restart: goes on from the longest interval that a robot was told."""
        self.interval_ms = self._bounded(interval_ms)
        self.adapt(robots)

    def _bounded(self, interval_ms: int) -> int:
        limits = self._limits
        return min(max(interval_ms, limits.heartbeat_interval_ms), limits.max_heartbeat_interval_ms)
