"""The robot brain: what a robot does with what it hears. Pure; one brain for any body."""

from __future__ import annotations

from collections import OrderedDict
from random import Random
from typing import Any

import msgspec

from fleet.limits import MS, SECOND
from fleet.messages import (
    Ack,
    CancelJob,
    ClaimJobs,
    Complete,
    Drain,
    Error,
    Fail,
    FromRobot,
    GrantedJob,
    Heartbeat,
    JobToken,
    Obeyed,
    Progress,
    Register,
    Resume,
    ServerMessage,
    Start,
    Welcome,
)

MAX_CLAIM = 10
REFUSED_PAUSE_MS = 1_000
RECONNECT_MIN_MS = 1_000
RECONNECT_MAX_MS = 30_000
MAX_OPEN_BEATS = 8
# A robot lets go of a job a little before the server would: its lease began before the robot heard of it.
HELD_PART = 0.9
LONGEST_S = 365 * 86_400.0  # of a job
MOST_STEPS = 1_000
# What was asked may have been done, or may yet be: it is asked for again under the same id.
UNDECIDED = frozenset({"unavailable", "failed", "overloaded", "busy"})
LOST = frozenset({"stale_token", "terminal", "not_found", "wrong_state", "not_yours"})


class RobotProfile(msgspec.Struct, frozen=True, kw_only=True):
    """How a simulated robot works. A job takes what its payload says (`service_s`, by the robot's `speed`),
    else an exponential time, cut at ten times the mean. `claim_wait_ms` is how long the server may hold an
    empty claim, `claim_pause_ms` how soon after one it asks for more; `claims` and `beats` are False for a
    robot that never asks for jobs, or whose body beats. `heartbeat_jitter`: how much earlier or later than
    its interval a heartbeat may be, as a share of it."""

    service_mean_s: float = 2.0
    speed: float = 1.0
    failure_probability: float = 0.02
    claims: bool = True
    beats: bool = True
    max_concurrent_jobs: int = 1
    capabilities: list[str] = []
    environment: str = "development"
    claim_wait_ms: int = 10_000
    claim_pause_ms: int = 200
    heartbeat_jitter: float = 0.1


class Connected(msgspec.Struct, frozen=True):
    pass


class Disconnected(msgspec.Struct, frozen=True):
    pass


class Woke(msgspec.Struct, frozen=True):
    pass


class Heard(msgspec.Struct, frozen=True):
    message: ServerMessage


class Say(msgspec.Struct, frozen=True):
    message: FromRobot


class WakeAt(msgspec.Struct, frozen=True):
    """Only the newest counts: a brain has one alarm."""

    at_ns: int


class ConnectAt(msgspec.Struct, frozen=True):
    at_ns: int


Sense = Connected | Disconnected | Woke | Heard
Effect = Say | WakeAt | ConnectAt
JobReport = Start | Complete | Fail | Obeyed


class _Work(msgspec.Struct):
    """A job in hand. It fills its slot until the server has confirmed its end."""

    job_id: str
    token: int
    ends_ns: int
    lease_ns: int
    held_until_ns: int
    started: bool = False
    ended: bool = False
    begins_ns: int = 0
    steps: int = 0  # how often to tell how far it is
    told: int = 0

    @property
    def step_ns(self) -> int | None:
        """When to tell next."""
        if self.ended or self.told >= self.steps:
            return None
        return self.begins_ns + (self.ends_ns - self.begins_ns) * (self.told + 1) // (self.steps + 1)

    @property
    def key(self) -> tuple[str, int]:
        return self.job_id, self.token


class RobotBrain:
    """`decide` is the only way in. It keeps its jobs through a lost connection: their tokens stay
    valid, and what it said without an answer it says again. A job whose lease no answered heartbeat has
    extended in time it drops before it does anything else: another robot may have it by now."""

    def __init__(self, profile: RobotProfile) -> None:
        self._profile = profile
        self._connected = False
        self._draining = False
        self._failures = 0
        self._heartbeat_ms = 0
        self._beat_ns: int | None = None
        self._claim_ns = 0
        self._claim: ClaimJobs | None = None
        self._claim_said = False  # on this connection
        self._works: dict[str, _Work] = {}
        self._unanswered: dict[str, JobReport] = {}  # message id -> what was said, in order
        self._again: dict[str, int] = {}  # message id -> when to say it again
        self._ids = 0
        self._cpu = 20.0
        self._memory = 512.0
        self._beats: OrderedDict[str, int] = OrderedDict()  # message id -> when it was said
        self.completed = 0
        self.failed = 0
        self.fenced = 0

    def decide(self, heard: Sense, now_ns: int, rng: Random) -> list[Effect]:
        """Everything that follows from one thing heard at `now_ns` (monotonic)."""
        self._fence(now_ns)
        match heard:
            case Connected():
                effects = self._on_connected()
            case Disconnected():
                effects = self._on_disconnected(now_ns, rng)
            case Heard(message):
                effects = self._on_message(message, now_ns, rng)
            case Woke():
                effects = []
        if self._connected:
            effects += self._repeat(now_ns)
            effects += self._work_on(now_ns, rng)
            effects += self._beat(now_ns, rng)
            effects += self._ask_for_work(now_ns, rng)
        else:
            self._work_on(now_ns, rng)  # what it has to report waits for a connection
        return effects + self._next_alarm()

    def _fence(self, now_ns: int) -> None:
        """What was finished in time is still to be told; what was not is not ours to go on with."""
        for work in [w for w in self._works.values() if not w.ended and w.held_until_ns <= now_ns]:
            del self._works[work.job_id]
            self.fenced += 1
            begun = [said for said, r in self._unanswered.items() if (r.job_id, r.token) == work.key]
            for said in begun:
                del self._unanswered[said]

    def _on_connected(self) -> list[Effect]:
        self._connected = True
        self._draining = False  # a session that drains is told so again
        return [self._register(), *(Say(report) for report in self._unanswered.values())]

    def _register(self) -> Effect:
        profile = self._profile
        return Say(
            Register(
                id=self._id(),
                environment=profile.environment,
                capabilities=profile.capabilities,
                max_concurrent_jobs=profile.max_concurrent_jobs,
            )
        )

    def _on_disconnected(self, now_ns: int, rng: Random) -> list[Effect]:
        self._connected = False
        self._claim_said = False
        self._heartbeat_ms = 0
        self._again.clear()
        ceiling_ms = min(RECONNECT_MAX_MS, RECONNECT_MIN_MS << min(self._failures, 10))
        self._failures += 1
        return [ConnectAt(now_ns + rng.randrange(ceiling_ms * MS))]

    def _on_message(self, message: ServerMessage, now_ns: int, rng: Random) -> list[Effect]:
        match message:
            case Welcome():
                # Only now: a server may accept a socket and close it for a bad token.
                self._failures = 0
                self._follow(max(1, message.heartbeat_ms), now_ns, rng)
            case Ack():
                self._on_ack(message, now_ns, rng)
            case Error():
                return self._on_error(message, now_ns)
            case CancelJob():
                return self._obey(message.job_id)
            case Drain():
                self._draining = True
            case Resume():
                self._draining = False
        return []

    def _follow(self, heartbeat_ms: int, now_ns: int, rng: Random) -> None:
        """A random phase: a fleet that starts together, or is told another interval together, must not beat
        together. Later than the first, the server answers a heartbeat so: the next is not due at once."""
        least = 0.5 if self._heartbeat_ms else 0.0
        self._heartbeat_ms = heartbeat_ms
        if self._profile.beats:
            self._beat_ns = now_ns + int(heartbeat_ms * MS * (least + rng.random()))

    def _on_ack(self, ack: Ack, now_ns: int, rng: Random) -> None:
        if self._ends_claim(ack.id):
            for job in ack.jobs or []:
                self._works[job.job_id] = self._take(job, now_ns, rng)
            return
        if str(ack.id) in self._beats:
            return self._hold(self._beats.pop(str(ack.id)))
        report = self._unanswered.pop(str(ack.id), None)
        if isinstance(report, Complete | Fail):
            self.completed += isinstance(report, Complete)
            self.failed += isinstance(report, Fail)
            self._drop(report)

    def _hold(self, said_ns: int) -> None:
        """An answered heartbeat extends the lease of what it named; of what came later it says less than its
        grant did."""
        for work in self._works.values():
            work.held_until_ns = max(work.held_until_ns, said_ns + int(work.lease_ns * HELD_PART))

    def _ends_claim(self, reply_to: str | int | None) -> bool:
        if self._claim is None or reply_to != self._claim.id:
            return False
        self._claim = None
        self._claim_said = False
        return True

    def _drop(self, report: JobReport) -> None:
        """The job may be back in hand under a newer token: that one stays."""
        work = self._works.get(report.job_id)
        if work is not None and work.token == report.token:
            del self._works[work.job_id]

    def _take(self, job: GrantedJob, now_ns: int, rng: Random) -> _Work:
        mean_s = self._profile.service_mean_s
        told_s = _number(job.payload, "service_s", LONGEST_S)
        service_s = min(rng.expovariate(1 / mean_s), 10 * mean_s) if told_s is None else told_s
        lease_ns = job.lease_ms * MS
        return _Work(
            job.job_id,
            job.token,
            now_ns + round(service_s / self._profile.speed * SECOND),
            lease_ns,
            now_ns + int(lease_ns * HELD_PART),
            begins_ns=now_ns,
            steps=int(_number(job.payload, "progress_steps", MOST_STEPS) or 0),
        )

    def _on_error(self, error: Error, now_ns: int) -> list[Effect]:
        later_ns = now_ns + REFUSED_PAUSE_MS * MS
        if self._claim is not None and error.id == self._claim.id:
            self._claim_said, self._claim_ns = False, later_ns
            if error.code not in UNDECIDED:
                self._claim = None
        elif error.code == "not_found" and (error.id is None or str(error.id) in self._beats):
            return [self._register()]  # a heartbeat found nobody of our name
        elif report := self._unanswered.get(str(error.id)):
            if error.code in LOST:
                del self._unanswered[str(error.id)]
                self._drop(report)
            else:
                self._again[str(error.id)] = later_ns
        return []

    def _obey(self, job_id: str) -> list[Effect]:
        work = self._works.pop(job_id, None)
        if work is None:
            return []
        return [self._report(Obeyed(id=self._id(), job_id=job_id, token=work.token))]

    def _repeat(self, now_ns: int) -> list[Effect]:
        due = [said for said, at_ns in self._again.items() if at_ns <= now_ns]
        for said in due:
            del self._again[said]
        return [Say(self._unanswered[said]) for said in due if said in self._unanswered]

    def _work_on(self, now_ns: int, rng: Random) -> list[Effect]:
        effects: list[Effect] = []
        for work in self._works.values():
            if not work.started:
                work.started = True
                start = Start(id=self._id(), job_id=work.job_id, token=work.token)
                effects.append(self._report(start))
            while (step_ns := work.step_ns) is not None and step_ns <= now_ns:
                work.told += 1
                if self._connected:
                    effects.append(Say(_progress(work)))
            if not work.ended and work.ends_ns <= now_ns:
                work.ended = True
                effects.append(self._report(self._end(work, rng)))
        return effects

    def _end(self, work: _Work, rng: Random) -> JobReport:
        said, job_id, token = self._id(), work.job_id, work.token
        if rng.random() < self._profile.failure_probability:
            return Fail(id=said, job_id=job_id, token=token, error="simulated failure")
        return Complete(id=said, job_id=job_id, token=token, result={"ok": True})

    def _report(self, message: JobReport) -> Effect:
        self._unanswered[str(message.id)] = message
        return Say(message)

    def _beat(self, now_ns: int, rng: Random) -> list[Effect]:
        if self._beat_ns is None or not self._heartbeat_ms or self._beat_ns > now_ns:
            return []
        spread = rng.uniform(1 - self._profile.heartbeat_jitter, 1 + self._profile.heartbeat_jitter)
        self._beat_ns = now_ns + int(self._heartbeat_ms * MS * spread)
        busy = bool(self._works)
        self._cpu = _wander(self._cpu, 5.0, 60.0 if busy else 5.0, 100.0, rng)
        self._memory = _wander(self._memory, 20.0, 900.0 if busy else 400.0, 4_096.0, rng)
        return [Say(self.heartbeat(now_ns, round(self._cpu, 1), round(self._memory, 1)))]

    def heartbeat(self, now_ns: int, cpu_percent: float, memory_mb: float) -> Heartbeat:
        """With the jobs in hand."""
        self._fence(now_ns)
        jobs = [JobToken(work.job_id, work.token) for work in self._works.values()]
        return Heartbeat(
            id=self._note_beat(now_ns) if jobs else None,
            status="busy" if jobs else "idle",
            cpu_percent=cpu_percent,
            memory_mb=memory_mb,
            jobs=jobs,
        )

    def awaits(self, reply_to: str | int) -> bool:
        """Whether an answer to that message would change anything."""
        if self._claim is not None and self._claim.id == reply_to:
            return True
        if not self._unanswered and not self._beats:
            return False
        said = str(reply_to)
        return said in self._unanswered or said in self._beats

    @property
    def busy(self) -> bool:
        return bool(self._works)

    def _note_beat(self, now_ns: int) -> str:
        """Only with jobs in hand is an answer worth its message."""
        said = self._id()
        self._beats[said] = now_ns
        if len(self._beats) > MAX_OPEN_BEATS:
            self._beats.popitem(last=False)
        return said

    def _may_claim(self) -> bool:
        ready = (
            self._profile.claims and self._heartbeat_ms > 0 and not self._draining and not self._claim_said
        )
        return ready and self._free_slots() > 0

    def _free_slots(self) -> int:
        return self._profile.max_concurrent_jobs - len(self._works)

    def _ask_for_work(self, now_ns: int, rng: Random) -> list[Effect]:
        if not self._may_claim() or self._claim_ns > now_ns:
            return []
        # A claim that a lost connection left open keeps its request id: no job is granted twice.
        self._claim = self._claim or self._new_claim(rng)
        self._claim_said = True
        self._claim_ns = now_ns + self._profile.claim_pause_ms * MS
        return [Say(self._claim)]

    def _new_claim(self, rng: Random) -> ClaimJobs:
        return ClaimJobs(
            id=self._id(),
            limit=min(self._free_slots(), MAX_CLAIM),
            wait_ms=self._profile.claim_wait_ms,
            request_id=f"{rng.getrandbits(64):016x}",
        )

    def _next_alarm(self) -> list[Effect]:
        working = [work for work in self._works.values() if not work.ended]
        times = [min(work.ends_ns, work.held_until_ns) for work in working]
        times += [step_ns for work in working if (step_ns := work.step_ns) is not None]
        times += self._again.values()
        if self._beat_ns is not None and self._heartbeat_ms:
            times.append(self._beat_ns)
        if self._may_claim():
            times.append(self._claim_ns)
        return [WakeAt(min(times))] if times else []

    def _id(self) -> str:
        self._ids += 1
        return str(self._ids)


def _progress(work: _Work) -> Progress:
    return Progress(
        job_id=work.job_id, token=work.token, progress=round(100 * work.told / (work.steps + 1), 1)
    )


def _number(payload: Any, name: str, most: float) -> float | None:
    """What a job says of itself; anybody may have written it."""
    value = payload.get(name) if isinstance(payload, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        return None
    return float(value)


def _wander(value: float, step: float, centre: float, top: float, rng: Random) -> float:
    """One step of a random walk in [0, top] that is drawn back to `centre`."""
    return min(top, max(0.0, value + rng.uniform(-step, step) + 0.1 * (centre - value)))
