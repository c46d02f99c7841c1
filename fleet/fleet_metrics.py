"""The snapshot of metrics/stream, with the reference's keys in its order."""

from __future__ import annotations

import msgspec

from fleet.messages import JobCounts, RobotCounts


class Jobs(msgspec.Struct, frozen=True):
    pending: int
    running: int
    completed_today: int
    failed_today: int


class Queue(msgspec.Struct, frozen=True):
    depth: int
    avg_wait_time_ms: int


class System(msgspec.Struct, frozen=True):
    uptime_seconds: int
    version: str


class FleetMetrics(msgspec.Struct, frozen=True):
    robots: RobotCounts
    jobs: Jobs
    queue: Queue
    system: System


class MetricsMessage(msgspec.Struct, frozen=True, tag_field="type", tag="metrics"):
    timestamp: str
    data: FleetMetrics


def fleet_metrics(robots: RobotCounts, jobs: JobCounts, version: str) -> FleetMetrics:
    return FleetMetrics(
        robots,
        Jobs(jobs.pending, jobs.running, jobs.completed_today, jobs.failed_today),
        Queue(jobs.depth, jobs.avg_wait_time_ms),
        System(jobs.up_s, version),
    )
