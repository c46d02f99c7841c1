"""What one operation means for one job: where it may take effect, and what it then does.

A step's `take` gives the job afterwards, or None where the operation cannot have been answered so.
"""

from __future__ import annotations

import msgspec

from checkers.history import Cancelled, Grant, Op, Shown
from checkers.job_model import UNSEEN, JobModel, Point, State, Times, is_over
from fleet.job import JobEvent, JobStatus

REPEATABLE = (JobStatus.FAILED, JobStatus.CANCELLED)  # a retry makes a new job of these


class Step(msgspec.Struct):
    """It took effect between `invoked_ns` and `ended_ns`; after NEVER's end, perhaps not at all."""

    op: Op | None
    invoked_ns: int
    ended_ns: int

    def take(self, model: JobModel, state: State, times: Times) -> Point | None:
        raise NotImplementedError


class Born(Step):
    def take(self, model: JobModel, state: State, times: Times) -> Point | None:
        return model.move(state, times, JobEvent.SUBMIT)


class Got(Step):
    """A robot was given the job."""

    robot: str
    grant: Grant

    def take(self, model: JobModel, state: State, times: Times) -> Point | None:
        if self.grant.attempt != state.attempt + 1:
            return None
        return model.granted(state, times, self.robot, self.grant.token)


class Reported(Step):
    """`shown` is what the robot saw in answer, where it said it once."""

    robot: str
    token: int
    event: JobEvent
    retryable: bool
    shown: Shown | None

    def take(self, model: JobModel, state: State, times: Times) -> Point | None:
        if (self.robot, self.token) != (state.robot, state.token):
            return None
        if self.event is JobEvent.PROGRESS:
            point = (state, times) if model.target(state, self.event) else None
        else:
            point = model.move(state, times, self.event, self.retryable)
        return point if point and self._fits(point[0]) else None

    def _fits(self, after: State) -> bool:
        if self.shown is None:
            return True
        if after.status is JobStatus.PENDING and self.shown.status is JobStatus.CLAIMED:
            return True  # granted again in the same breath
        return (after.status, after.attempt) == (self.shown.status, self.shown.attempt)


class Refused(Step):
    """A report that changed nothing, for a reason that the state must give."""

    robot: str
    token: int
    event: JobEvent
    retryable: bool
    code: str

    def take(self, model: JobModel, state: State, times: Times) -> Point | None:
        return (state, times) if self._is_due(model, state) else None

    def _is_due(self, model: JobModel, state: State) -> bool:
        match self.code:
            case "stale_token":
                return (self.robot, self.token) != (state.robot, state.token)
            case "terminal":
                return is_over(state)
            case "wrong_state":
                return model.target(state, self.event, self.retryable) is None
            case "not_found":
                return state.status is None or is_over(state)
        return True


class CancelAsked(Step):
    """`answer` None: nobody knows what came of it."""

    answer: Cancelled | None

    def take(self, model: JobModel, state: State, times: Times) -> Point | None:
        if state.status is None:
            return None
        if self.answer and self.answer != Cancelled(not is_over(state), state.status):
            return None
        if is_over(state):
            return state, times
        if state.status is JobStatus.PENDING:
            return model.move(state, times, JobEvent.CANCEL)
        return model.asked_to_stop(state, times, JobEvent.CANCEL)


class Beaten(Step):
    """A heartbeat named the job; the robot was told to stop it, or not."""

    robot: str
    token: int
    stop: bool

    def take(self, model: JobModel, state: State, times: Times) -> Point | None:
        theirs = state.robot == self.robot
        flagged = state.stopping or state.timed_out
        newest = theirs and self.token == state.token
        if self.stop:
            due = not theirs or self.token > state.token or (newest and flagged)
            return (state, times) if due else None
        if newest and not flagged:
            return state, model.extended(times)
        # It names an older grant of a job that is the robot's again, perhaps without having heard of it.
        older = self.token < state.token and (theirs or state.robot == UNSEEN)
        return (state, times) if older else None


class Seen(Step):
    """A reader saw the job, or that there is none."""

    shown: Shown | None

    def take(self, model: JobModel, state: State, times: Times) -> Point | None:
        if self.shown is None:
            due = state.status is None or is_over(state)
        else:
            due = (state.status, state.attempt) == (self.shown.status, self.shown.attempt)
        return (state, times) if due else None


class Retried(Step):
    """A new job was made of this one, or refused."""

    made: bool

    def take(self, model: JobModel, state: State, times: Times) -> Point | None:
        due = state.status in REPEATABLE if self.made else state.status not in REPEATABLE
        return (state, times) if due else None
