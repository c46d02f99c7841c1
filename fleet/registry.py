"""Who is in the fleet and how it does: registration, heartbeats, offline, maintenance, drain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleet.alarms import Alarms
from fleet.errors import Busy, Conflict, NotFound, Unavailable
from fleet.events import RobotStatusChanged, encode
from fleet.explain import Suited, suited
from fleet.heartbeat_pace import HeartbeatPace
from fleet.limits import MS, Limits
from fleet.messages import (
    Admitted,
    AnnounceRobot,
    Beat,
    BeatReply,
    Opened,
    RobotCounts,
    RobotSpec,
    SetRobotStatus,
    StatusSet,
)
from fleet.robot import Pause, Robot, RobotStatus
from fleet.robot_entry import Deletion, RobotEntry
from fleet.robot_record import RecordChanges, RobotRecord
from fleet.wall_time import rfc3339, wall_ns_of

MAX_DELETED = 1_000


class RobotRegistry:
    """Every robot and its last heartbeat. `now_ns` is a monotonic clock that rests while nobody could be
    heard. Events (JSON, robot-status) and changed records pile up until they are taken."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._robots: dict[str, RobotEntry] = {}
        self._deleted: dict[str, bytes] = {}
        self._sessions: dict[str, str] = {}
        self._pace = HeartbeatPace(limits)
        self._silences = Alarms()  # when a robot that is not offline may have to be
        self._returns = Alarms()  # when a maintenance or drain ends by itself, in wall time
        self._counts = dict.fromkeys(RobotStatus, 0)
        self._admission = 0
        self._events: list[bytes] = []
        self._changed: dict[str, None] = {}

    def take_events(self) -> list[bytes]:
        events, self._events = self._events, []
        return events

    # -- what a restart must not forget

    def take_records(self) -> RecordChanges:
        """What changed since the last call, for the journal, each robot once and as it is now."""
        changed, self._changed = self._changed, {}
        kept = [self._robots[robot_id] for robot_id in changed if robot_id in self._robots]
        gone = [robot_id for robot_id in changed if robot_id not in self._robots]
        return RecordChanges([entry.record() for entry in kept], gone)

    def restore(self, records: Iterable[RobotRecord], now_ns: int) -> None:
        """Into an empty registry. Who was not offline is believed to be there, idle until it says otherwise,
        for as long as if it had just been heard. Nothing is announced."""
        for record in records:
            robot_id = record.spec.robot_id
            entry = RobotEntry.restored(record, now_ns)
            self._robots[robot_id] = entry
            self._counts[entry.status()] += 1
            self._admission = max(self._admission, entry.admission)
            self._return_by(entry)
            if not entry.offline:
                self._silences.set_by(robot_id, self._silent_at(entry))
        told = [entry.interval_ms for entry in self._robots.values() if not entry.offline]
        self._pace.resume(max(told, default=0), len(told))

    # -- sockets and registration

    def open(self, robot_id: str, session: str) -> Opened:
        """A socket of this robot opened; it supersedes every earlier one."""
        if robot_id not in self._sessions and len(self._sessions) >= self._limits.max_robots:
            raise self._full()
        self._sessions[robot_id] = session
        entry = self._robots.get(robot_id)
        if entry is not None:
            self._tell_interval(entry)
        return Opened(self._pace.interval_ms, entry is not None)

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
            raise self._full()
        if session:
            self._sessions[spec.robot_id] = session
        if entry is None:
            return self._add(spec, now_ns, wall_ns).view()
        self._say_of_itself(entry, spec)
        self._tell_interval(entry)
        return entry.view()

    def _add(self, spec: RobotSpec, now_ns: int, wall_ns: int) -> RobotEntry:
        self._pace.adapt(len(self._robots) + 1 - self._counts[RobotStatus.OFFLINE])
        at, interval_ms = rfc3339(wall_ns), self._pace.interval_ms
        entry = RobotEntry(
            spec=spec,
            created_at=at,
            seen_ns=now_ns,
            seen_at=at,
            interval_ms=interval_ms,
            followed_ms=interval_ms,
            admission=self._next_admission(wall_ns),
        )
        self._robots[spec.robot_id] = entry
        self._deleted.pop(spec.robot_id, None)
        self._counts[entry.status()] += 1
        self._silences.set_by(spec.robot_id, self._silent_at(entry))
        self._keep(entry)
        self._announce(entry, at)
        return entry

    def update(self, spec: RobotSpec) -> Robot:
        entry = self._entry(spec.robot_id)
        self._say_of_itself(entry, spec)
        return entry.view()

    def _say_of_itself(self, entry: RobotEntry, spec: RobotSpec) -> None:
        if entry.spec != spec:
            entry.spec = spec
            self._keep(entry)

    # -- heartbeats

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
        if entry.offline:
            entry.offline = False
            self._keep(entry)
        self._count(before, entry.status())
        self._tell_interval(entry, heard=True)
        self._silences.set_by(beat.robot_id, self._silent_at(entry))
        self._announce(entry, at)
        lease_ms = self._limits.lease_ms_at(entry.followed_ms)
        return BeatReply(entry.interval_ms, entry.drain is not None, "", lease_ms)

    def _tell_interval(self, entry: RobotEntry, heard: bool = False) -> None:
        """The robot may go on for a while with what it was told before: until its next beat, which shows
        that it was there to be told."""
        told_ms = self._pace.interval_ms
        before_ms = entry.interval_ms if heard else entry.followed_ms
        followed_ms = max(told_ms, before_ms)
        if (entry.interval_ms, entry.followed_ms) != (told_ms, followed_ms):
            entry.interval_ms, entry.followed_ms = told_ms, followed_ms
            self._keep(entry)

    def _silent_at(self, entry: RobotEntry) -> int:
        return entry.seen_ns + self._limits.offline_after_ms_at(entry.followed_ms) * MS

    # -- the passing of time

    def expire(self, now_ns: int, wall_ns: int) -> None:
        """Declares robots offline that missed their heartbeats, and ends what was to last until now."""
        for robot_id in self._silences.take_ringing(now_ns):
            entry = self._robots[robot_id]
            if self._silent_at(entry) > now_ns:
                self._silences.set_by(robot_id, self._silent_at(entry))
            else:
                self._lose(entry, rfc3339(wall_ns))
        for robot_id in self._returns.take_ringing(wall_ns):
            self._return(self._robots[robot_id], wall_ns)

    def next_tick_ns(self, now_ns: int, wall_ns: int) -> int | None:
        """Before then `expire` would change nothing."""
        end_ns = self._returns.next_at()
        times = (self._silences.next_at(), None if end_ns is None else now_ns + end_ns - wall_ns)
        return min((at_ns for at_ns in times if at_ns is not None), default=None)

    def _lose(self, entry: RobotEntry, at: str) -> None:
        before = entry.status()
        entry.offline = True
        self._count(before, RobotStatus.OFFLINE)
        self._keep(entry)
        self._announce(entry, at)

    def _return(self, entry: RobotEntry, wall_ns: int) -> None:
        before = entry.status()
        if entry.end_pauses(wall_ns):
            self._count(before, entry.status())
            self._keep(entry)
            self._announce(entry, rfc3339(wall_ns))
        self._return_by(entry)

    def _return_by(self, entry: RobotEntry) -> None:
        end_ns = entry.pauses_end_ns()
        if end_ns is not None:
            self._returns.set_by(entry.spec.robot_id, end_ns)

    # -- what operators do

    def announce(self, command: AnnounceRobot, wall_ns: int) -> None:
        """Says what it is told and changes no robot."""
        told = (command.robot_id, command.status, command.cpu_percent, command.memory_mb)
        self._events.append(encode(RobotStatusChanged(*told, rfc3339(wall_ns))))

    def set_status(self, command: SetRobotStatus, wall_ns: int) -> StatusSet:
        """An event if its status is another. Raises NotFound, or PeerFault for a bad time."""
        entry = self._entry(command.robot_id)
        until = command.until and rfc3339(wall_ns_of(command.until))
        before = entry.status()
        pause = Pause(note=command.note, since=rfc3339(wall_ns), until=until)
        entry.pause(command.maintenance, command.draining, pause)
        if command.maintenance or command.draining:
            entry.admission = self._next_admission(wall_ns)
        self._return_by(entry)
        self._keep(entry)
        if entry.status() != before:
            self._count(before, entry.status())
            self._announce(entry, rfc3339(wall_ns))
        return StatusSet(entry.view(), entry.admission)

    def admit(self, robot_id: str, now_ns: int) -> Admitted:
        """May this robot ask for work? Raises NotFound, or Conflict while it is to get none."""
        entry = self._entry(robot_id)
        if entry.maintenance is not None:
            raise Conflict(f"{robot_id} is in maintenance and gets no jobs", "maintenance")
        if entry.drain is not None:
            raise Conflict(f"{robot_id} is draining and gets no jobs", "draining")
        if entry.deleting(now_ns):
            raise Conflict(f"{robot_id} is being deleted and gets no jobs", "deleting")
        spec, lease_ms = entry.spec, self._limits.lease_ms_at(entry.followed_ms)
        return Admitted(
            spec.capabilities, spec.environment, spec.max_concurrent_jobs, lease_ms, entry.admission
        )

    def begin_deletion(self, robot_id: str, now_ns: int, wall_ns: int) -> int:
        """No claim is admitted meanwhile. Whether the robot holds jobs is the job store's to know, and its
        caller's to ask, once claims from before the admission returned are ended."""
        entry = self._entry(robot_id)
        entry.admission = self._next_admission(wall_ns)
        self._keep(entry)
        under_way = entry.deleting(now_ns)
        since = under_way.admission if under_way else entry.admission
        entry.deletion = Deletion(since, now_ns + self._limits.deletion_ms * MS)
        return entry.admission

    def give_up_deletion(self, robot_id: str) -> None:
        self._entry(robot_id).deletion = None

    def delete(self, robot_id: str, admission: int, now_ns: int, wall_ns: int) -> None:
        """Ends a deletion that was under way ever since `admission`, else raises Unavailable: begin anew. A
        robot that is not there is deleted already. The last that watchers hear of it is offline."""
        entry = self._robots.get(robot_id)
        if entry is None:
            return
        deletion = entry.deleting(now_ns)
        if deletion is None or deletion.admission > admission:
            raise Unavailable(f"the deletion of {robot_id} was interrupted; try again", "interrupted", 1.0)
        if not entry.offline:
            self._lose(entry, rfc3339(wall_ns))
        self._deleted[robot_id] = entry.last_event()
        if len(self._deleted) > MAX_DELETED:
            del self._deleted[next(iter(self._deleted))]
        self._counts[RobotStatus.OFFLINE] -= 1
        self._silences.stop(robot_id)
        self._returns.stop(robot_id)
        self._keep(entry)
        del self._robots[robot_id]
        self._sessions.pop(robot_id, None)

    # -- reads

    def get(self, robot_id: str) -> Robot:
        return self._entry(robot_id).view()

    def page(
        self, status: str | None, environment: str | None, limit: int, offset: int
    ) -> tuple[list[Robot], int]:
        """By robot id; the second value counts all that match."""
        found = [
            entry
            for _, entry in sorted(self._robots.items())
            if status in (None, entry.status()) and environment in (None, entry.spec.environment)
        ]
        return [entry.view() for entry in found[offset : offset + limit]], len(found)

    def suited(self, environment: str | None, capabilities: Sequence[str]) -> Suited:
        """Who could take a job with these needs."""
        limit = self._limits.max_explained_robots
        return suited(self._robots.values(), environment, capabilities, limit)

    def latest(self) -> list[bytes]:
        """The last event of every robot, and of the 1,000 that were deleted last."""
        return [*self._deleted.values(), *(entry.last_event() for entry in self._robots.values())]

    def counts(self) -> RobotCounts:
        idle, busy = self._counts[RobotStatus.IDLE], self._counts[RobotStatus.BUSY]
        return RobotCounts(len(self._robots), idle + busy, idle, busy, self._counts[RobotStatus.OFFLINE])

    # -- the rules behind

    def _superseded(self, robot_id: str, session: str) -> bool:
        """A session that nobody opened is believed: after a restart the robot's socket still stands."""
        return bool(session) and self._sessions.get(robot_id, session) != session

    def _next_admission(self, wall_ns: int) -> int:
        """Higher than any before, also of a robot that was deleted before a restart: hence wall time."""
        self._admission = max(self._admission + 1, wall_ns // MS)
        return self._admission

    def _full(self) -> Busy:
        return Busy(f"the registry holds its limit of {self._limits.max_robots} robots", "full", 5.0)

    def _entry(self, robot_id: str) -> RobotEntry:
        entry = self._robots.get(robot_id)
        if entry is None:
            raise NotFound(f"no robot {robot_id}; register it first")
        return entry

    def _keep(self, entry: RobotEntry) -> None:
        self._changed[entry.spec.robot_id] = None

    def _count(self, before: RobotStatus, after: RobotStatus) -> None:
        if before is after:
            return
        self._counts[before] -= 1
        self._counts[after] += 1
        if RobotStatus.OFFLINE in (before, after):
            self._pace.adapt(len(self._robots) - self._counts[RobotStatus.OFFLINE])

    def _announce(self, entry: RobotEntry, at: str) -> None:
        entry.said = entry.event(at)
        self._events.append(entry.said)
