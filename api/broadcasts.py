"""Custom events for the watchers, from any process that is attached to a fleet."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec

from fleet.errors import Misuse
from fleet.events import MonitoringEvent
from fleet.job import JobStatus
from fleet.messages import Cpu, Depth, Id, Memory
from fleet.robot import RobotStatus

Kind = TypeVar("Kind")


class Announcer(Protocol):
    async def announce_job(self, job_id: str, status: str) -> None: ...

    async def announce_robot(
        self, robot_id: str, status: str, cpu_percent: float, memory_mb: float
    ) -> None: ...

    async def announce_depth(self, depth: int) -> None: ...


_attached: list[Announcer] = []


def attach(announcer: Announcer) -> None:
    """Raises Misuse if this process is attached already."""
    if _attached:
        raise Misuse("this process is attached to a fleet already: close that attachment first")
    _attached.append(announcer)


def detach() -> None:
    _attached.clear()


def _announcer() -> Announcer:
    if not _attached:
        raise Misuse("this process is not attached to a fleet: call fleetcast.attach(address=...) first")
    return _attached[0]


def _checked(name: str, value: Any, kind: type[Kind]) -> Kind:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Misuse(f"{name}: {error}") from None


async def broadcast_job_update(job_id: str, status: str) -> None:
    """One event on live-jobs, journaled with the jobs' own; no job changes. Raises Misuse for what is no
    job id or status, or without an attachment; Unavailable if the fleet does not answer."""
    announcer = _announcer()
    await announcer.announce_job(
        _checked("job_id", job_id, Id),
        _checked("status", status, JobStatus),
    )


async def broadcast_robot_status(
    robot_id: str, status: str, cpu_percent: float = 0.0, memory_mb: float = 0.0
) -> None:
    """One event on robot-status (percent, MB); no robot changes. Raises as `broadcast_job_update`."""
    announcer = _announcer()
    await announcer.announce_robot(
        _checked("robot_id", robot_id, Id),
        _checked("status", status, RobotStatus),
        _checked("cpu_percent", cpu_percent, Cpu),
        _checked("memory_mb", memory_mb, Memory),
    )


async def broadcast_queue_metrics(depth: int) -> None:
    """One event on queue-metrics. It does not change the depth that a new watcher sees first. Raises as
    `broadcast_job_update`."""
    announcer = _announcer()
    await announcer.announce_depth(_checked("depth", depth, Depth))


async def on_job_status_changed(event: MonitoringEvent) -> None:
    """Broadcasts it, unless it came from the fleet: that has told its watchers itself."""
    if event.source != "fleet":
        await broadcast_job_update(*_fields(event, "job_id", "status"))


async def on_robot_heartbeat(event: MonitoringEvent) -> None:
    """As `on_job_status_changed`."""
    if event.source != "fleet":
        await broadcast_robot_status(*_fields(event, "robot_id", "status", "cpu_percent", "memory_mb"))


async def on_queue_depth_changed(event: MonitoringEvent) -> None:
    """As `on_job_status_changed`."""
    if event.source != "fleet":
        await broadcast_queue_metrics(*_fields(event, "depth"))


def _fields(event: MonitoringEvent, *names: str) -> list[Any]:
    missing = [name for name in names if name not in event.payload]
    if missing:
        raise Misuse(f"the payload of {event.type} lacks {', '.join(missing)}")
    return [event.payload[name] for name in names]
