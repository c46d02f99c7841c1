"""A job's states and its whole life cycle, as one table."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from fleet.errors import Conflict
from fleet.wall_time import WallTime


class JobStatus(StrEnum):
    PENDING = "pending"
    CLAIMED = "claimed"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobEvent(StrEnum):
    """What may happen to a job; commands of people and robots, and the passing of time."""

    SUBMIT = "submit"
    CLAIM = "claim"
    START = "start"
    HEARTBEAT = "heartbeat"
    PROGRESS = "progress"
    RELEASE = "release"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"
    CANCELLED = "cancelled"  # the robot obeyed
    LEASE_EXPIRED = "lease_expired"
    CANCEL_EXPIRED = "cancel_expired"  # the robot did not obey in time
    TIMEOUT = "timeout"
    PENDING_TIMEOUT = "pending_timeout"
    STUCK = "stuck"  # nothing was heard of its progress for long
    RETRIED = "retried"  # as a new job; this one stays as it is


ACTIVE = frozenset({JobStatus.CLAIMED, JobStatus.RUNNING})
TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


# Not kw_only: such a struct is unpickled by Python code, four times as slowly, and jobs travel in lists.
class Job(msgspec.Struct, frozen=True):
    """What the world may see of a job. Frozen: a snapshot handed out never changes afterwards.
    `last_progress_at`: its claim, start or newest progress report; `stuck`: that is long ago."""

    job_id: str
    name: str
    payload: dict[str, Any] = {}
    status: JobStatus = JobStatus.PENDING
    priority: int = 10
    environment: str | None = None
    required_capabilities: list[str] = []
    not_before: WallTime | None = None
    attempt: int = 0
    max_attempts: int = 3
    timeout_s: float | None = None
    pending_timeout_s: float | None = None
    created_at: WallTime = ""
    claimed_at: WallTime | None = None
    started_at: WallTime | None = None
    finished_at: WallTime | None = None
    robot_id: str | None = None
    progress: float | None = None
    result: Any = None
    error: str | None = None
    cancel_requested: bool = False
    last_progress_at: WallTime | None = None
    stuck: bool = False
    dead_letter: bool = False
    retry_of: str | None = None
    retried_by: str | None = None


class Ask(msgspec.Struct, frozen=True):
    """What the guards may look at."""

    attempts_left: bool
    cancel_requested: bool
    retryable: bool = True
    timed_out: bool = False


class Rule(msgspec.Struct, frozen=True):
    source: JobStatus | None
    event: JobEvent
    target: JobStatus
    guard: Callable[[Ask], bool]


def always(ask: Ask) -> bool:
    return True


def stopping(ask: Ask) -> bool:
    return ask.cancel_requested


def late(ask: Ask) -> bool:
    return ask.timed_out


def again(ask: Ask) -> bool:
    return ask.attempts_left and ask.retryable


def stopping_retryably(ask: Ask) -> bool:
    return ask.cancel_requested and ask.retryable


def _rules() -> tuple[Rule, ...]:
    P, C, R = JobStatus.PENDING, JobStatus.CLAIMED, JobStatus.RUNNING
    DONE, FAILED, STOPPED = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED
    E = JobEvent
    rules = [
        Rule(None, E.SUBMIT, P, always),
        Rule(P, E.CLAIM, C, always),
        Rule(C, E.START, R, always),
        Rule(R, E.COMPLETE, DONE, always),
        Rule(P, E.CANCEL, STOPPED, always),
        Rule(P, E.PENDING_TIMEOUT, FAILED, always),
        Rule(R, E.TIMEOUT, R, always),
    ]
    for held in (C, R):
        rules += [
            Rule(held, E.HEARTBEAT, held, always),
            Rule(held, E.PROGRESS, held, always),
            Rule(held, E.CANCEL, held, always),
            # A job that is being stopped never goes back to the queue: its owner asked for its end.
            Rule(held, E.RELEASE, FAILED, late),
            Rule(held, E.RELEASE, STOPPED, stopping),
            Rule(held, E.RELEASE, P, always),
            Rule(held, E.LEASE_EXPIRED, FAILED, late),
            Rule(held, E.LEASE_EXPIRED, STOPPED, stopping),
            Rule(held, E.LEASE_EXPIRED, P, again),
            Rule(held, E.LEASE_EXPIRED, FAILED, always),
            Rule(held, E.FAIL, FAILED, late),
            Rule(held, E.FAIL, STOPPED, stopping_retryably),
            Rule(held, E.FAIL, P, again),
            Rule(held, E.FAIL, FAILED, always),
            Rule(held, E.CANCELLED, FAILED, late),
            Rule(held, E.CANCELLED, STOPPED, stopping),
            Rule(held, E.CANCEL_EXPIRED, FAILED, late),
            Rule(held, E.CANCEL_EXPIRED, STOPPED, stopping),
        ]
    return tuple(rules)


TRANSITIONS = _rules()


def _by_key() -> dict[tuple[JobStatus | None, JobEvent], list[Rule]]:
    table: dict[tuple[JobStatus | None, JobEvent], list[Rule]] = {}
    for rule in TRANSITIONS:
        table.setdefault((rule.source, rule.event), []).append(rule)
    return table


_TABLE = _by_key()


def next_status(status: JobStatus | None, event: JobEvent, ask: Ask) -> JobStatus:
    """The first rule whose guard holds. Raises Conflict, naming state and event, when none does."""
    for rule in _TABLE.get((status, event), ()):
        if rule.guard(ask):
            return rule.target
    code = "terminal" if status in TERMINAL else "wrong_state"
    raise Conflict(f"a job that is {status} does not admit {event}", code)
