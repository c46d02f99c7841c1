"""One robot as the registry holds it."""

from __future__ import annotations

import msgspec

from fleet.events import RobotStatusChanged, encode
from fleet.messages import Beat, RobotSpec
from fleet.robot import Pause, Robot, RobotMetrics, RobotStatus, status_of
from fleet.robot_record import RobotRecord
from fleet.wall_time import wall_ns_of


class Deletion(msgspec.Struct, frozen=True):
    """Under way since `admission`, without a break; lapses at `until_ns`."""

    admission: int
    until_ns: int


class RobotEntry(msgspec.Struct, kw_only=True):
    """The fields of its RobotRecord, and what a restart may forget."""

    spec: RobotSpec
    created_at: str
    seen_ns: int
    seen_at: str
    heartbeat_at: str | None = None
    beat: Beat = Beat("")
    offline: bool = False
    maintenance: Pause | None = None
    drain: Pause | None = None
    interval_ms: int
    followed_ms: int
    admission: int
    deletion: Deletion | None = None
    said: bytes = b""  # the last event

    @classmethod
    def restored(cls, record: RobotRecord, now_ns: int) -> RobotEntry:
        fields = {name: getattr(record, name) for name in RobotRecord.__struct_fields__}
        return cls(**fields, seen_ns=now_ns)

    def record(self) -> RobotRecord:
        return RobotRecord(**{name: getattr(self, name) for name in RobotRecord.__struct_fields__})

    def status(self) -> RobotStatus:
        beat = self.beat
        return status_of(self.offline, self.maintenance is not None, beat.status, bool(beat.job_ids))

    def event(self, at: str) -> bytes:
        """Of robot-status, as it is now."""
        beat, robot_id = self.beat, self.spec.robot_id
        return encode(RobotStatusChanged(robot_id, self.status(), beat.cpu_percent, beat.memory_mb, at))

    def last_event(self) -> bytes:
        return self.said or self.event(self.seen_at)

    def pause(self, maintenance: bool | None, draining: bool | None, pause: Pause) -> None:
        """Enters either with `pause`, or ends it; None leaves it as it is."""
        if maintenance is not None:
            self.maintenance = pause if maintenance else None
        if draining is not None:
            self.drain = pause if draining else None

    def end_pauses(self, wall_ns: int) -> bool:
        """Those whose time has passed; whether there were any."""
        before = (self.maintenance, self.drain)
        self.maintenance = _lasting(self.maintenance, wall_ns)
        self.drain = _lasting(self.drain, wall_ns)
        return (self.maintenance, self.drain) != before

    def pauses_end_ns(self) -> int | None:
        """When the first of them ends by itself, in wall time."""
        pauses = (self.maintenance, self.drain)
        return min(
            (wall_ns_of(p.until) for p in pauses if p is not None and p.until is not None), default=None
        )

    def deleting(self, now_ns: int) -> Deletion | None:
        return self.deletion if self.deletion is not None and self.deletion.until_ns > now_ns else None

    def view(self) -> Robot:
        spec, beat = self.spec, self.beat
        return Robot(
            **{name: getattr(spec, name) for name in RobotSpec.__struct_fields__},
            status=self.status(),
            current_job_ids=beat.job_ids,
            last_seen=self.seen_at,
            last_heartbeat=self.heartbeat_at,
            created_at=self.created_at,
            draining=self.drain is not None,
            drain=self.drain,
            maintenance=self.maintenance,
            heartbeat_interval_ms=self.interval_ms,
            metrics=RobotMetrics(beat.cpu_percent, beat.memory_mb),
        )


def _lasting(pause: Pause | None, wall_ns: int) -> Pause | None:
    over = pause is not None and pause.until is not None and wall_ns_of(pause.until) <= wall_ns
    return None if over else pause
