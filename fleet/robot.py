"""A robot as the world sees it, and the one rule that says what state it is in."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fleet.wall_time import WallTime


class RobotStatus(StrEnum):
    IDLE = "idle"
    BUSY = "busy"
    OFFLINE = "offline"
    ERROR = "error"
    MAINTENANCE = "maintenance"


class RobotMetrics(msgspec.Struct, frozen=True):
    cpu_percent: float = 0.0
    memory_mb: float = 0.0


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Maintenance or a drain: why, since when and, unless somebody ends it by hand, until when."""

    note: str = ""
    since: WallTime
    until: WallTime | None = None


class Robot(msgspec.Struct, frozen=True, kw_only=True):
    """`heartbeat_interval_ms` is how often it was told to beat."""

    robot_id: str
    name: str
    hostname: str
    environment: str
    capabilities: list[str]
    tags: list[str]
    max_concurrent_jobs: int
    status: RobotStatus
    current_job_ids: list[str]
    last_seen: WallTime
    last_heartbeat: WallTime | None
    created_at: WallTime
    draining: bool
    drain: Pause | None
    maintenance: Pause | None
    heartbeat_interval_ms: int
    metrics: RobotMetrics


def status_of(offline: bool, maintenance: bool, reported: str, lists_a_job: bool) -> RobotStatus:
    """offline > maintenance > reported error > busy (says so, or lists a job) > idle."""
    if offline:
        return RobotStatus.OFFLINE
    if maintenance:
        return RobotStatus.MAINTENANCE
    if reported == RobotStatus.ERROR:
        return RobotStatus.ERROR
    if reported == RobotStatus.BUSY or lists_a_job:
        return RobotStatus.BUSY
    return RobotStatus.IDLE
