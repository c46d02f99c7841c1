"""The events of the streams, with exactly the reference's keys in its order."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

LIVE_JOBS = "live-jobs"
ROBOT_STATUS = "robot-status"
QUEUE_METRICS = "queue-metrics"
METRICS = "metrics"
STREAMS = (LIVE_JOBS, ROBOT_STATUS, QUEUE_METRICS, METRICS)
KEYS = "keys"  # changes of the key table, for doors
FEEDS = (*STREAMS, KEYS)


class MonitoringEventType(StrEnum):
    JOB_STATUS_CHANGED = "job_status_changed"
    ROBOT_HEARTBEAT = "robot_heartbeat"
    QUEUE_DEPTH_CHANGED = "queue_depth_changed"


FEED_OF = {
    MonitoringEventType.JOB_STATUS_CHANGED: LIVE_JOBS,
    MonitoringEventType.ROBOT_HEARTBEAT: ROBOT_STATUS,
    MonitoringEventType.QUEUE_DEPTH_CHANGED: QUEUE_METRICS,
}


class MonitoringEvent(msgspec.Struct, frozen=True):
    """What a subscriber of the event bus gets. `payload` has the keys of the stream's messages, and
    `timestamp` their form; `source` is "fleet" for the fleet's own events."""

    type: MonitoringEventType
    payload: dict[str, Any]
    timestamp: str = ""
    source: str = ""


class JobStatusChanged(msgspec.Struct, frozen=True):
    job_id: str
    status: str
    timestamp: str


class RobotStatusChanged(msgspec.Struct, frozen=True):
    robot_id: str
    status: str
    cpu_percent: float
    memory_mb: float
    timestamp: str


class QueueDepthChanged(msgspec.Struct, frozen=True):
    depth: int
    timestamp: str


encode = msgspec.json.Encoder().encode
