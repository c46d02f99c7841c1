"""One job as the transition table allows it: its states, and what happens to it without being asked.

The table of `fleet.job` alone says what an event leads to. What is written here is what the promise says
beside it: who may report, what counts as an attempt, and how soon a deadline may pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import msgspec

from checkers.history import NEVER, Change, FinalJob
from fleet.errors import Conflict
from fleet.job import ACTIVE, TERMINAL, Ask, JobEvent, JobStatus, next_status

UNSEEN = "?"  # holds a job whose grant nobody was told of
E = JobEvent


class Bounds(msgspec.Struct, frozen=True):
    """How soon the server may act by itself, on the clock of the record. 0: at any time.

    `lease_ns`: after the last accepted heartbeat or the grant; the shortest that any grant tells.
    `cancel_grace_ns`: after the request to stop. `timeouts`: a job's own `timeout_s` and
    `pending_timeout_s` hold too. Beyond `max_states` places a job's history is undecided."""

    lease_ns: int = 0
    cancel_grace_ns: int = 0
    timeouts: bool = False
    max_states: int = 20_000


class State(msgspec.Struct, frozen=True):
    """`robot` has it, "" nobody. `shown`: how many of the announced changes have happened."""

    status: JobStatus | None = None
    attempt: int = 0
    token: int = 0
    robot: str = ""
    stopping: bool = False
    timed_out: bool = False
    shown: int = 0

    def __str__(self) -> str:
        if self.status is None:
            return "not there"
        held = f" by {self.robot} under token {self.token}" if self.status in ACTIVE else ""
        flags = ", to be cancelled" * self.stopping + ", timed out" * self.timed_out
        return f"{self.status}{held}, attempt {self.attempt}{flags}"


class Times(msgspec.Struct, frozen=True):
    """The earliest: now, and when the lease, the grace of a stop, and a timeout may end."""

    now: int = -NEVER
    lease: int = 0
    stop: int = 0
    alarm: int = 0

    def no_later(self, other: Times) -> bool:
        return (
            self.now <= other.now
            and self.lease <= other.lease
            and self.stop <= other.stop
            and self.alarm <= other.alarm
        )


Point = tuple[State, Times]


def _outcome(status: JobStatus | None, event: JobEvent, ask: Ask) -> JobStatus | None:
    try:
        return next_status(status, event, ask)
    except Conflict:
        return None


# The table, asked once for each question: status, event, attempts left, to be cancelled, retryable, late.
_TABLE = {
    (status, event, *flags): _outcome(status, event, Ask(*flags))
    for status, event, flags in product([None, *JobStatus], JobEvent, product((True, False), repeat=4))
}


class JobModel:
    """`timeout_ns` and `pending_timeout_ns`: 0 for any time, None for never. `unseen_ns`: from when on
    the job may have been granted to a robot that was not told, None for never."""

    def __init__(
        self,
        max_attempts: int,
        bounds: Bounds,
        timeout_ns: int | None = 0,
        pending_timeout_ns: int | None = 0,
        unseen_ns: int | None = None,
        changes: list[Change] | None = None,
    ) -> None:
        self._max_attempts = max_attempts
        self._bounds = bounds
        self._timeout_ns = timeout_ns
        self._pending_timeout_ns = pending_timeout_ns
        self._unseen_ns = unseen_ns
        self._changes = changes

    def target(self, state: State, event: JobEvent, retryable: bool = True) -> JobStatus | None:
        """Where `event` leads, None if the table does not admit it."""
        left = state.attempt < self._max_attempts
        return _TABLE[(state.status, event, left, state.stopping, retryable, state.timed_out)]

    def move(self, state: State, times: Times, event: JobEvent, retryable: bool = True) -> Point | None:
        """`times.now` is when. For events that change the status, all but `granted`."""
        target = self.target(state, event, retryable)
        if target is None or not self._announced(state, event, target):
            return None
        attempt, shown, now = state.attempt, state.shown + 1, times.now
        if event is E.START:
            alarm = now + (self._timeout_ns or 0)
            return (
                State(target, attempt, state.token, state.robot, state.stopping, state.timed_out, shown),
                Times(now, times.lease, times.stop, alarm),
            )
        if target is JobStatus.PENDING:
            back = 1 if event is E.RELEASE else 0
            alarm = now + (self._pending_timeout_ns or 0)
            return State(target, attempt - back, state.token, shown=shown), Times(now, alarm=alarm)
        return State(target, attempt, state.token, shown=shown), Times(now)

    def granted(self, state: State, times: Times, robot: str, token: int) -> Point | None:
        target = self.target(state, E.CLAIM)
        if target is None or token <= state.token or not self._announced(state, E.CLAIM, target):
            return None
        granted = State(target, state.attempt + 1, token, robot, shown=state.shown + 1)
        return granted, self.extended(times)

    def extended(self, times: Times) -> Times:
        """A new lease."""
        return Times(times.now, times.now + self._bounds.lease_ns, times.stop, times.alarm)

    def asked_to_stop(self, state: State, times: Times, event: JobEvent) -> Point | None:
        """A cancel or a timeout of a job that is held: a flag. The earlier grace counts."""
        if self.target(state, event) is not state.status:
            return None
        first = not (state.stopping or state.timed_out)
        stop = times.now + self._bounds.cancel_grace_ns if first else times.stop
        stopping = state.stopping or event is E.CANCEL
        timed_out = state.timed_out or event is E.TIMEOUT
        flagged = State(
            state.status, state.attempt, state.token, state.robot, stopping, timed_out, state.shown
        )
        return flagged, Times(times.now, times.lease, stop, times.alarm)

    def unasked(self, state: State, times: Times, until_ns: int) -> Iterator[Point]:
        """All that the server may do by itself, not later than `until_ns`, each at its earliest."""
        for event, earliest in self._due(state, times):
            now = max(times.now, earliest)
            if now > until_ns:
                continue
            at = Times(now, times.lease, times.stop, times.alarm)
            if event is E.CLAIM:
                point = self.granted(state, at, UNSEEN, state.token + 1)
            elif event is E.TIMEOUT:
                point = self.asked_to_stop(state, at, event)
            else:
                point = self.move(state, at, event)
            if point is not None:
                yield point

    def _due(self, state: State, times: Times) -> Iterator[tuple[JobEvent, int]]:
        if state.status is JobStatus.PENDING:
            if self._pending_timeout_ns is not None:
                yield E.PENDING_TIMEOUT, times.alarm
            if self._unseen_ns is not None:
                yield E.CLAIM, self._unseen_ns
        else:
            yield E.LEASE_EXPIRED, times.lease
            yield E.CANCEL_EXPIRED, times.stop
            # By a door whose robot has left. Where it was not announced, nothing shows that it happened.
            if state.robot == UNSEEN and self._changes is not None:
                yield E.RELEASE, times.now
            if self._timeout_ns is not None:
                yield E.TIMEOUT, times.alarm

    def _announced(self, state: State, event: JobEvent, target: JobStatus) -> bool:
        """The change is the next that the server told of."""
        if self._changes is None:
            return True
        if state.shown == len(self._changes):
            return False
        change = self._changes[state.shown]
        return change.status is target and change.event in (None, event)

    def ends_as(self, state: State, final: FinalJob) -> bool:
        same = (state.status, state.attempt) == (final.status, final.attempt)
        return same and (self._changes is None or state.shown == len(self._changes))


def is_over(state: State) -> bool:
    return state.status in TERMINAL
