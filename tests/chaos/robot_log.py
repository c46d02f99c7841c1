"""What one robot says and hears, written down as the checkers want it."""

from __future__ import annotations

import time

import msgspec
from checkers import history
from checkers.history import Grant, Granted, Invoked, Recorder, ToStop

from fleet.job import JobEvent
from fleet.messages import (
    Ack,
    CancelJob,
    ClaimJobs,
    Complete,
    Error,
    Fail,
    FromRobot,
    GrantedJob,
    Heartbeat,
    Obeyed,
    ServerMessage,
    Start,
)

# What the server says when it has decided against it. Any other error leaves open what happened.
REFUSALS = frozenset(
    (
        *("stale_token", "terminal", "wrong_state", "not_found", "not_yours", "bad_message"),
        *("no_free_slot", "maintenance", "draining", "deleting", "superseded"),
    )
)
REPORTS: dict[type[FromRobot], JobEvent] = {
    Start: JobEvent.START,
    Complete: JobEvent.COMPLETE,
    Fail: JobEvent.FAIL,
    Obeyed: JobEvent.CANCELLED,
}


class _Said(msgspec.Struct):
    """`stops`: the jobs of a heartbeat that it was told to stop since. `overtaken`: another one was said
    before this one was answered, and the door may have sent only that."""

    invoked: Invoked
    jobs: list[str] = []
    stops: list[str] = []
    overtaken: bool = False


class RobotLog:
    """`held` are the jobs that it was granted and of which it has not said the end."""

    def __init__(self, robot_id: str, recorder: Recorder) -> None:
        self.held: dict[str, Grant] = {}
        self.stale_refused = 0
        self.slowest_s = 0.0  # answer to something that was said since `began_ns`
        self.began_ns = 0
        self._robot_id = robot_id
        self._recorder = recorder
        self._open: dict[str, _Said] = {}

    def say(self, message: FromRobot) -> None:
        """Before it is sent."""
        if isinstance(message, Heartbeat):
            for said in self._beats():
                said.overtaken = True
        call = self._call_of(message)
        if call is None:
            return
        self._open[str(message.id)] = said = _Said(self._recorder.invoke(self._robot_id, call))
        if isinstance(message, Heartbeat):
            said.jobs = [job.job_id for job in message.jobs]

    def _call_of(self, message: FromRobot) -> history.AnyCall | None:
        match message:
            case ClaimJobs():
                return history.Claim(self._robot_id, message.request_id, message.limit)
            case Heartbeat(jobs=jobs) if jobs:
                return history.Beat(self._robot_id, jobs)
            case Start() | Complete() | Fail() | Obeyed():
                event = REPORTS[type(message)]
                if event is not JobEvent.START:
                    self.held.pop(message.job_id, None)
                retryable = message.retryable if isinstance(message, Fail) else True
                return history.Report(event, message.job_id, self._robot_id, message.token, retryable)
        return None

    def hear(self, message: ServerMessage) -> None:
        """Before it is acted upon."""
        match message:
            case Ack(id=reply_to, jobs=jobs):
                said = self._take(reply_to)
                if said is not None:
                    self._recorder.ok(said.invoked, self._answer(said, jobs or []))
            case Error(id=reply_to, code=code):
                said = self._take(reply_to)
                if said is not None:
                    self._refused(said, code)
            case CancelJob(job_id=job_id):
                for said in self._beats():
                    if job_id in said.jobs:
                        said.stops.append(job_id)

    def _take(self, reply_to: str | int | None) -> _Said | None:
        said = self._open.pop(str(reply_to), None)
        if said is not None and said.invoked.at_ns > self.began_ns:
            took_s = (time.monotonic_ns() - said.invoked.at_ns) / 1e9
            self.slowest_s = max(self.slowest_s, took_s)
        return said

    def _answer(self, said: _Said, jobs: list[GrantedJob]) -> history.AnyTold | None:
        match said.invoked.call:
            case history.Claim():
                grants = [Grant(job.job_id, job.token, job.attempt, job.max_attempts) for job in jobs]
                self.held |= {grant.job_id: grant for grant in grants}
                return Granted(grants)
            case history.Beat():
                return None if said.overtaken else ToStop(said.stops)
        return None

    def _refused(self, said: _Said, code: str) -> None:
        if code not in REFUSALS:
            self._recorder.unknown(said.invoked)
            return
        self._recorder.fail(said.invoked, code)
        if isinstance(said.invoked.call, history.Report):
            self.held.pop(said.invoked.call.job_id, None)
            self.stale_refused += code == "stale_token"

    def _beats(self) -> list[_Said]:
        return [said for said in self._open.values() if isinstance(said.invoked.call, history.Beat)]

    def lose(self) -> None:
        """The socket is gone: nothing more is heard of what is open."""
        for said in self._open.values():
            self._recorder.unknown(said.invoked)
        self._open.clear()
