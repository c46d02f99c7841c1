"""The clients of the world: robots that work, err and freeze; producers that submit and change their mind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from checkers import history
from fleet.errors import Busy, FleetError
from fleet.job import Job, JobEvent, JobStatus
from fleet.messages import (
    Answer,
    Beats,
    Cancel,
    Cancelled,
    Claim,
    Get,
    JobSpec,
    JobToken,
    Report,
    Retry,
    Submit,
)
from fleet.wall_time import rfc3339

if TYPE_CHECKING:
    from checkers.world import Exchange, World

E = JobEvent
TRIES = 5
LEAVE = frozenset({"stale_token", "terminal", "not_found", "not_yours"})


def told_of(call: history.AnyCall, reply: Any) -> history.AnyTold:
    """What a client writes down of an answer."""
    match reply:
        case Job() if isinstance(call, history.Retry):
            return history.Created([reply.job_id])
        case Job():
            return history.Shown(reply.status, reply.attempt)
        case Cancelled(_, cancelled, previous_status):
            return history.Cancelled(cancelled, JobStatus(previous_status))
        case Answer():
            grants = [
                history.Grant(one.job.job_id, one.token, one.job.attempt, one.job.max_attempts)
                for one in reply.grants
            ]
            return history.Granted(grants)
        case [Job(), *_]:
            return history.Created([job.job_id for job in reply])
        case list():
            return history.ToStop(reply)
    raise TypeError(f"no client expects {reply}")


class Work(msgspec.Struct, eq=False):
    job_id: str
    token: int


class Robot:
    def __init__(self, world: World, name: str, slots: int) -> None:
        self._world = world
        self._rng = world.rng
        self.name = name
        self._slots = slots
        self._requests = itertools.count(1)
        self.request_id = ""
        self._asking: Exchange | None = None
        self._works: dict[str, Work] = {}
        self._life = 0
        self._frozen_until_ns = 0
        self._again(self._ask, 80)
        self._again(self._beat, 300)
        self._again(self._have_trouble, 1_500)

    # -- being awake

    def _again(self, act: Callable[[], None], every_ms: float) -> None:
        def turn() -> None:
            act()
            self._again(act, every_ms)

        self._world.after(self._rng.uniform(0.5, 1.5) * every_ms, lambda: self._awake(turn))

    def _awake(self, act: Callable[[], None]) -> None:
        """A frozen robot does everything later, as if no time had passed."""
        frozen_ns = self._frozen_until_ns - self._world.now_ns
        if frozen_ns > 0:
            self._world.after(frozen_ns / 1e6, act)
        else:
            act()

    def _awake_in_this_life(self, act: Callable[[], None]) -> None:
        life = self._life
        self._awake(lambda: act() if life == self._life else None)

    def _later(self, ms: float, act: Callable[[], None]) -> None:
        self._world.after(ms, lambda: self._awake_in_this_life(act))

    def _have_trouble(self) -> None:
        if self._world.calm:
            return
        dice = self._rng.random()
        if dice < 0.25:
            self._frozen_until_ns = self._world.now_ns + int(self._rng.uniform(0.8, 2.5) * 1e9)
        elif dice < 0.32:
            self._life += 1
            self._works.clear()
            self.request_id, self._asking = "", None

    # -- asking for work

    def _call(
        self, call: history.AnyCall, command: Any, done: Callable[[Any], None], **more: Any
    ) -> Exchange:
        from checkers.world import Exchange

        life = self._life

        def heard(reply: Any) -> None:
            if life == self._life:
                done(reply)

        return Exchange(self._world, self.name, call, command, heard, awake=self._awake, **more)

    def _ask(self) -> None:
        free = self._slots - len(self._works)
        if self._asking or not free:
            return
        self.request_id = self.request_id or f"{self.name}{next(self._requests)}"
        wait_ms = self._rng.choice([0, 200, 600])
        call = history.Claim(self.name, self.request_id, free)
        command = Claim("door", self.name, self.request_id, free, wait_ms, [], "e", self._slots)
        # An answer with no job is not remembered, so that a double of a claim that does not wait would be
        # a new claim of which the robot does not know.
        self._asking = self._call(call, command, self._told, timeout_ms=wait_ms + 400, may_double=wait_ms > 0)

    def hear(self, answer: Answer) -> None:
        if self._asking and answer.request_id == self.request_id:
            asking = self._asking
            self._awake_in_this_life(lambda: asking.end(answer))

    def _told(self, reply: Any) -> None:
        self._asking = None
        if reply is None:
            return  # asks again under the same request id
        if isinstance(reply, Answer):
            for grant in reply.grants:
                self._take(grant.job.job_id, grant.token)
        if self._rng.random() > 0.1 or len(self._works) == self._slots:
            self.request_id = ""  # else it asks again, though it was answered

    # -- working

    def _take(self, job_id: str, token: int) -> None:
        known = self._works.get(job_id)
        if known and known.token >= token:
            return
        work = self._works[job_id] = Work(job_id, token)
        if self._rng.random() < 0.1:
            self._say(work, E.START, lambda: None)
            self._finish(work)
        else:
            self._say(work, E.START, lambda: self._work_on(work))

    def _work_on(self, work: Work) -> None:
        if self._rng.random() < 0.3:
            self._later(self._rng.uniform(10, 300), lambda: self._say(work, E.PROGRESS, lambda: None))
        self._later(self._rng.choice([30, 200, 600, 1_300]), lambda: self._finish(work))

    def _finish(self, work: Work) -> None:
        event = self._rng.choices([E.COMPLETE, E.FAIL, E.RELEASE], [70, 20, 10])[0]
        self._say(work, event, lambda: self._drop(work, event))

    def _drop(self, work: Work, event: JobEvent | None = None) -> None:
        if self._is_mine(work):
            del self._works[work.job_id]
        if event is E.COMPLETE and self._rng.random() < 0.05:
            self._say(work, E.FAIL, lambda: None, tries=1, forced=True)  # says one thing, then another

    def _is_mine(self, work: Work) -> bool:
        return self._works.get(work.job_id) is work

    def _say(
        self, work: Work, event: JobEvent, then: Callable[[], None], tries: int = TRIES, forced: bool = False
    ) -> None:
        if not (self._is_mine(work) or forced):
            return
        retryable = event is not E.FAIL or work.token % 4 != 3
        fields = (event, work.job_id, self.name, work.token)

        def done(reply: Any) -> None:
            if isinstance(reply, Job):
                then()
            elif isinstance(reply, FleetError) and (reply.code in LEAVE or not tries):
                self._drop(work)
            elif tries:
                self._later(60, lambda: self._say(work, self._or_else(event, reply), then, tries - 1))
            else:
                self._drop(work)

        command = Report(*fields, retryable=retryable, error="broken" if event is E.FAIL else None)
        self._call(history.Report(*fields, retryable), command, done)

    def _or_else(self, event: JobEvent, reply: Any) -> JobEvent:
        """Some robots say another thing when nobody answers."""
        changes_mind = reply is None and event is E.COMPLETE and self._rng.random() < 0.2
        return E.FAIL if changes_mind else event

    # -- beats and orders to stop

    def _beat(self) -> None:
        if self._works:
            jobs = [JobToken(work.job_id, work.token) for work in self._works.values()]
            self._call(history.Beat(self.name, jobs), Beats(self.name, jobs), self._hear_stops)

    def _hear_stops(self, reply: Any) -> None:
        for job_id in reply if isinstance(reply, list) else ():
            self._obey(job_id)

    def hear_stop(self, job_id: str) -> None:
        self._awake_in_this_life(lambda: self._obey(job_id))

    def _obey(self, job_id: str) -> None:
        work = self._works.get(job_id)
        if work and self._rng.random() < 0.7:
            self._say(work, E.CANCELLED, lambda: self._drop(work))


class Producer:
    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._rng = world.rng
        self._name = name
        self._keys = itertools.count(1)
        self._busy = 0
        for _ in range(self._rng.randint(3, 5)):
            self._soon(self._rng.uniform(0, 3_500), self._submit)

    @property
    def idle(self) -> bool:
        return not self._busy

    def _soon(self, ms: float, act: Callable[[], None]) -> None:
        """What it has yet to do keeps the world going."""

        def turn() -> None:
            self._busy -= 1
            act()

        self._busy += 1
        self._world.after(ms, turn)

    def _call(self, call: history.AnyCall, command: Any, done: Callable[[Any], None]) -> None:
        from checkers.world import Exchange

        def ended(reply: Any) -> None:
            self._busy -= 1
            done(reply)

        self._busy += 1
        Exchange(self._world, self._name, call, command, ended)

    # -- submitting

    def _submit(self) -> None:
        key = f"{self._name}.{next(self._keys)}"
        submissions = [f"{key}.{n}" for n in range(self._rng.choice([1, 1, 2]))]
        more: dict[str, Any] = {
            "max_attempts": self._rng.randint(1, 3),
            "timeout_s": self._rng.choice([None, None, 0.3, 0.9]),
            "pending_timeout_s": self._rng.choice([None, None, None, 1.0]),
        }
        later = rfc3339(self._world.server.clock[1] + 500_000_000)
        not_before = later if self._rng.random() < 0.2 else None
        priority = self._rng.choice([3, 10])
        specs = [
            JobSpec(name="n", payload={"submission": one}, priority=priority, not_before=not_before, **more)
            for one in submissions
        ]
        # The door makes the ids; the same key gives the same.
        command = Submit([f"job-{one}" for one in submissions], specs)
        self._try_submit(history.Submit(submissions, key, **more), command, TRIES)

    def _try_submit(self, call: history.Submit, command: Submit, tries: int) -> None:
        def done(reply: Any) -> None:
            if isinstance(reply, list):
                for job in reply:
                    self._follow(job.job_id)
            elif tries and (reply is None or isinstance(reply, Busy)):
                self._soon(100, lambda: self._try_submit(call, command, tries - 1))

        self._call(call, command, done)

    def _follow(self, job_id: str) -> None:
        dice = self._rng.random()
        if dice < 0.35:
            self._soon(self._rng.uniform(0, 1_500), lambda: self._cancel(job_id, TRIES))
        if dice < 0.6:
            self._soon(self._rng.uniform(0, 4_000), lambda: self._look(job_id))

    def _cancel(self, job_id: str, tries: int) -> None:
        def done(reply: Any) -> None:
            if (reply is None and tries) or self._rng.random() < 0.1:
                self._soon(50, lambda: self._cancel(job_id, tries - 1))

        self._call(history.Cancel(job_id), Cancel(job_id), done)

    def _look(self, job_id: str) -> None:
        def done(reply: Any) -> None:
            if isinstance(reply, Job) and reply.status in (JobStatus.FAILED, JobStatus.CANCELLED):
                self._retry(job_id, f"{job_id}.again{next(self._keys)}", 2)

        self._call(history.Read(job_id), Get(job_id), done)

    def _retry(self, job_id: str, new_job_id: str, tries: int) -> None:
        def done(reply: Any) -> None:
            if reply is None and tries:
                self._soon(50, lambda: self._retry(job_id, new_job_id, tries - 1))

        self._call(history.Retry(job_id, new_job_id), Retry(job_id, new_job_id), done)
