"""What is kept of a robot for ever: all that its heartbeats do not tell again."""

from __future__ import annotations

import msgspec

from fleet.messages import RobotSpec
from fleet.robot import Pause
from fleet.wall_time import WallTime


class RobotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """For the journal. `seen_at` and `heartbeat_at` are as old as the record, and exact of a robot that is
    offline. `interval_ms` is the heartbeat interval that the robot was told last, `followed_ms` the longest
    that it may still follow. `admission` rises whenever the robot's claims of before lose their admission."""

    spec: RobotSpec
    created_at: WallTime
    seen_at: WallTime
    heartbeat_at: WallTime | None = None
    offline: bool = False
    maintenance: Pause | None = None
    drain: Pause | None = None
    interval_ms: int
    followed_ms: int
    admission: int


class RecordChanges(msgspec.Struct, frozen=True):
    """What became of robots since the last look: each is in one of the two at most."""

    changed: list[RobotRecord]
    deleted: list[str]
