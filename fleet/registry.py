"""Who is in the fleet and how it does: registration, heartbeats, offline, maintenance, drain."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import msgspec

from fleet.errors import Busy, Conflict, NotFound
from fleet.events import RobotStatusChanged, encode
from fleet.limits import MS, Limits
from fleet.messages import Admitted, Beat, BeatReply, Opened, RobotCounts, RobotSpec
from fleet.robot import Robot, RobotMetrics, RobotStatus, status_of
from fleet.wall_time import rfc3339

MAX_DELETED = 1_000


class _Entry(msgspec.Struct):
    spec: RobotSpec
    created_at: str
    seen_ns: int
    seen_at: str
    heartbeat_at: str | None = None
    beat: Beat = Beat("")
    offline: bool = False
    maintenance: bool = False
    draining: bool = False
    said: bytes = b""

    def status(self) -> RobotStatus:
        return status_of(self.offline, self.maintenance, self.beat.status, bool(self.beat.job_ids))


class RobotRegistry:
    """Every robot and its last heartbeat. `announce` payloads are JSON of robot-status events, in order;
    take them with `take_events` after each command."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._robots: dict[str, _Entry] = {}
        self._deleted: dict[str, bytes] = {}
        self._sessions: dict[str, str] = {}
        # One entry per robot that is not offline; stale deadlines are pushed back when they surface.
        self._deadlines: list[tuple[int, str]] = []
        self._watched: set[str] = set()
        self._counts = dict.fromkeys(RobotStatus, 0)
        self._events: list[bytes] = []

    def take_events(self) -> list[bytes]:
        events, self._events = self._events, []
        return events

    def open(self, robot_id: str, session: str) -> Opened:
        """A socket of this robot opened; it supersedes every earlier one."""
        if robot_id not in self._sessions and len(self._sessions) >= self._limits.max_robots:
            raise Busy(f"the registry holds its limit of {self._limits.max_robots} robots", "full", 5.0)
        self._sessions[robot_id] = session
        return Opened(self._limits.heartbeat_interval_ms)

    def close(self, robot_id: str, session: str) -> None:
        """That socket closed. The robot is offline when its heartbeats stay away, not before."""
        if self._sessions.get(robot_id) == session:
            del self._sessions[robot_id]

    def register(self, spec: RobotSpec, session: str, now_ns: int, wall_ns: int) -> Robot:
        """Adds the robot or replaces what it says of itself; sending it twice changes nothing more."""
        if self._superseded(spec.robot_id, session):
            raise Conflict(f"a newer connection of {spec.robot_id} took over", "superseded")
        entry = self._robots.get(spec.robot_id)
        if entry is None and len(self._robots) >= self._limits.max_robots:
            raise Busy(f"the registry holds its limit of {self._limits.max_robots} robots", "full", 5.0)
        if session:
            self._sessions[spec.robot_id] = session
        if entry is None:
            now = rfc3339(wall_ns)
            entry = _Entry(spec, now, now_ns, now)
            self._robots[spec.robot_id] = entry
            self._deleted.pop(spec.robot_id, None)
            self._counts[entry.status()] += 1
            self._watch(spec.robot_id, now_ns)
            self._announce(entry, now)
        entry.spec = spec
        return self._view(entry)

    def heartbeats(self, beats: Sequence[Beat], now_ns: int, wall_ns: int) -> list[BeatReply]:
        """One reply per beat; every accepted beat is one event."""
        at = rfc3339(wall_ns)
        return [self._heartbeat(beat, now_ns, at) for beat in beats]

    def _heartbeat(self, beat: Beat, now_ns: int, at: str) -> BeatReply:
        entry = self._robots.get(beat.robot_id)
        if entry is None:
            return BeatReply(refused="not_found")
        if self._superseded(beat.robot_id, beat.session):
            return BeatReply(refused="superseded")
        before = entry.status()
        entry.beat = beat
        entry.seen_ns = now_ns
        entry.seen_at = entry.heartbeat_at = at
        entry.offline = False
        self._watch(beat.robot_id, now_ns)
        self._count(before, entry.status())
        self._announce(entry, at)
        return BeatReply(self._limits.heartbeat_interval_ms, entry.draining)

    def admit(self, robot_id: str) -> Admitted:
        """May this robot ask for work? Raises NotFound, or Conflict in maintenance or when draining."""
        entry = self._entry(robot_id)
        if entry.maintenance:
            raise Conflict(f"{robot_id} is in maintenance and gets no jobs", "maintenance")
        if entry.draining:
            raise Conflict(f"{robot_id} is draining and gets no jobs", "draining")
        spec = entry.spec
        return Admitted(spec.capabilities, spec.environment, spec.max_concurrent_jobs)

    def set_status(
        self, robot_id: str, maintenance: bool | None, draining: bool | None, wall_ns: int
    ) -> Robot:
        entry = self._entry(robot_id)
        before = entry.status()
        entry.maintenance = entry.maintenance if maintenance is None else maintenance
        entry.draining = entry.draining if draining is None else draining
        if entry.status() != before:
            self._count(before, entry.status())
            self._announce(entry, rfc3339(wall_ns))
        return self._view(entry)

    def update(self, spec: RobotSpec) -> Robot:
        entry = self._entry(spec.robot_id)
        entry.spec = spec
        return self._view(entry)

    def delete(self, robot_id: str, wall_ns: int) -> None:
        """Whether it holds jobs is the job store's to know, and its caller's to ask. The last that
        watchers hear of it is offline."""
        entry = self._entry(robot_id)
        self._counts[entry.status()] -= 1
        if not entry.offline:
            entry.offline = True
            self._announce(entry, rfc3339(wall_ns))
        self._deleted[robot_id] = _last_word(entry)
        if len(self._deleted) > MAX_DELETED:
            del self._deleted[next(iter(self._deleted))]
        del self._robots[robot_id]
        self._sessions.pop(robot_id, None)

    def get(self, robot_id: str) -> Robot:
        return self._view(self._entry(robot_id))

    def page(
        self, status: str | None, environment: str | None, limit: int, offset: int
    ) -> tuple[list[Robot], int]:
        """By robot id; the second value counts all that match."""
        found = [
            entry
            for _, entry in sorted(self._robots.items())
            if status in (None, entry.status()) and environment in (None, entry.spec.environment)
        ]
        return [self._view(entry) for entry in found[offset : offset + limit]], len(found)

    def latest(self) -> list[bytes]:
        """The last event of every robot, and of those that were deleted last."""
        return [*self._deleted.values(), *map(_last_word, self._robots.values())]

    def expire(self, now_ns: int, wall_ns: int) -> None:
        """Declares robots offline whose last sign of life is `offline_after_ms` old."""
        allowed_ns = self._limits.offline_after_ms * MS
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            _, robot_id = heapq.heappop(self._deadlines)
            self._watched.discard(robot_id)
            entry = self._robots.get(robot_id)
            if entry is None:
                continue
            if entry.seen_ns + allowed_ns > now_ns:
                self._watch(robot_id, entry.seen_ns)
                continue
            before = entry.status()
            entry.offline = True
            self._count(before, RobotStatus.OFFLINE)
            self._announce(entry, rfc3339(wall_ns))

    def counts(self) -> RobotCounts:
        idle, busy = self._counts[RobotStatus.IDLE], self._counts[RobotStatus.BUSY]
        return RobotCounts(len(self._robots), idle + busy, idle, busy, self._counts[RobotStatus.OFFLINE])

    def _superseded(self, robot_id: str, session: str) -> bool:
        """A session that nobody opened is believed: after a restart the robot's socket still stands."""
        return bool(session) and self._sessions.get(robot_id, session) != session

    def _watch(self, robot_id: str, seen_ns: int) -> None:
        if robot_id not in self._watched:
            self._watched.add(robot_id)
            deadline = seen_ns + self._limits.offline_after_ms * MS
            heapq.heappush(self._deadlines, (deadline, robot_id))

    def _entry(self, robot_id: str) -> _Entry:
        entry = self._robots.get(robot_id)
        if entry is None:
            raise NotFound(f"no robot {robot_id}; register it first")
        return entry

    def _count(self, before: RobotStatus, after: RobotStatus) -> None:
        self._counts[before] -= 1
        self._counts[after] += 1

    def _announce(self, entry: _Entry, at: str) -> None:
        entry.said = encode(_status_changed(entry, at))
        self._events.append(entry.said)

    def _view(self, entry: _Entry) -> Robot:
        spec, beat = entry.spec, entry.beat
        return Robot(
            **{name: getattr(spec, name) for name in RobotSpec.__struct_fields__},
            status=entry.status(),
            current_job_ids=beat.job_ids,
            last_seen=entry.seen_at,
            last_heartbeat=entry.heartbeat_at,
            created_at=entry.created_at,
            draining=entry.draining,
            metrics=RobotMetrics(beat.cpu_percent, beat.memory_mb),
        )


def _status_changed(entry: _Entry, at: str) -> RobotStatusChanged:
    beat = entry.beat
    return RobotStatusChanged(entry.spec.robot_id, entry.status(), beat.cpu_percent, beat.memory_mb, at)


def _last_word(entry: _Entry) -> bytes:
    return entry.said or encode(_status_changed(entry, entry.seen_at))
