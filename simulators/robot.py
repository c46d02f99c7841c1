"""The robot brain: what a robot does with what it hears. Pure; one brain for any body."""

from __future__ import annotations

from random import Random

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
    Register,
    ServerMessage,
    Start,
    Welcome,
)

CLAIM_PAUSE_MS = 200
REFUSED_PAUSE_MS = 1_000
RECONNECT_MIN_MS = 1_000
RECONNECT_MAX_MS = 30_000
HEARTBEAT_JITTER = 0.1
LOST = frozenset({"stale_token", "terminal", "not_found", "wrong_state", "not_yours"})


class RobotProfile(msgspec.Struct, frozen=True, kw_only=True):
    """How a simulated robot works. Service times are exponential, cut at ten times the mean."""

    service_mean_s: float = 2.0
    failure_probability: float = 0.02
    max_concurrent_jobs: int = 1
    capabilities: list[str] = []
    environment: str = "development"
    claim_wait_ms: int = 10_000


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


class _Work(msgspec.Struct):
    """A job in hand. `report` is what was said of its end, until the server has confirmed it."""

    job_id: str
    token: int
    ends_ns: int
    started: bool = False
    report: FromRobot | None = None


class RobotBrain:
    """`decide` is the only way in. It keeps its jobs through a lost connection: their tokens stay
    valid, and what it said without an answer it says again."""

    def __init__(self, profile: RobotProfile) -> None:
        self._profile = profile
        self._connected = False
        self._draining = False
        self._failures = 0
        self._heartbeat_ms = 0
        self._beat_ns: int | None = None
        self._claim_ns = 0
        self._claim: ClaimJobs | None = None
        self._works: dict[str, _Work] = {}
        self._asked: dict[str, str] = {}  # message id -> job id
        self._ids = 0
        self._cpu = 20.0
        self._memory = 512.0
        self.completed = 0
        self.failed = 0

    def decide(self, heard: Sense, now_ns: int, rng: Random) -> list[Effect]:
        """Everything that follows from one thing heard at `now_ns` (monotonic)."""
        match heard:
            case Connected():
                effects = self._on_connected()
            case Disconnected():
                return self._on_disconnected(now_ns, rng)
            case Heard(message):
                effects = self._on_message(message, now_ns, rng)
            case Woke():
                effects = []
        if self._connected:
            effects += self._work_on(now_ns, rng)
            effects += self._beat(now_ns, rng)
            effects += self._ask_for_work(now_ns, rng)
            effects += self._next_alarm()
        return effects

    def _on_connected(self) -> list[Effect]:
        self._connected = True
        self._failures = 0
        self._asked.clear()
        for work in self._works.values():
            work.started = False  # a repeated start is answered as the first was
        profile = self._profile
        register = Register(
            id=self._id(),
            environment=profile.environment,
            capabilities=profile.capabilities,
            max_concurrent_jobs=profile.max_concurrent_jobs,
        )
        again: list[Effect] = [Say(work.report) for work in self._works.values() if work.report]
        return [Say(register), *again]

    def _on_disconnected(self, now_ns: int, rng: Random) -> list[Effect]:
        self._connected = False
        self._claim = None
        self._heartbeat_ms = 0
        ceiling_ms = min(RECONNECT_MAX_MS, RECONNECT_MIN_MS << min(self._failures, 10))
        self._failures += 1
        return [ConnectAt(now_ns + rng.randrange(ceiling_ms * MS))]

    def _on_message(self, message: ServerMessage, now_ns: int, rng: Random) -> list[Effect]:
        match message:
            case Welcome():
                self._heartbeat_ms = message.heartbeat_ms
                # A random phase: a fleet that starts together must not beat together.
                self._beat_ns = now_ns + rng.randrange(message.heartbeat_ms * MS)
            case Ack():
                return self._on_ack(message, now_ns, rng)
            case Error():
                self._on_error(message, now_ns)
            case CancelJob():
                return self._obey(message.job_id)
            case Drain():
                self._draining = True
        return []

    def _on_ack(self, ack: Ack, now_ns: int, rng: Random) -> list[Effect]:
        if self._claim is not None and ack.id == self._claim.id:
            self._claim = None
            self._claim_ns = max(self._claim_ns, now_ns) if ack.jobs else self._claim_ns
            for job in ack.jobs or []:
                self._works[job.job_id] = self._take(job, now_ns, rng)
            return []
        work = self._works.get(self._asked.pop(str(ack.id), ""))
        if work is not None and work.report is not None and work.report.id == ack.id:
            del self._works[work.job_id]
        return []

    def _take(self, job: GrantedJob, now_ns: int, rng: Random) -> _Work:
        mean_s = self._profile.service_mean_s
        service_s = min(rng.expovariate(1 / mean_s), 10 * mean_s)
        return _Work(job.job_id, job.token, now_ns + int(service_s * SECOND))

    def _on_error(self, error: Error, now_ns: int) -> None:
        if self._claim is not None and error.id == self._claim.id:
            self._claim = None
            self._claim_ns = now_ns + REFUSED_PAUSE_MS * MS
            return
        work = self._works.get(self._asked.pop(str(error.id), ""))
        if work is not None and error.code in LOST:
            del self._works[work.job_id]

    def _obey(self, job_id: str) -> list[Effect]:
        work = self._works.pop(job_id, None)
        return [] if work is None else [Say(Obeyed(id=self._id(), job_id=job_id, token=work.token))]

    def _work_on(self, now_ns: int, rng: Random) -> list[Effect]:
        effects: list[Effect] = []
        for work in self._works.values():
            if not work.started:
                work.started = True
                if work.report is None:
                    start = Start(id=self._id(), job_id=work.job_id, token=work.token)
                    effects.append(self._ask(work, start))
            if work.report is None and work.ends_ns <= now_ns:
                work.report = self._end(work, rng)
                effects.append(self._ask(work, work.report))
        return effects

    def _end(self, work: _Work, rng: Random) -> FromRobot:
        if rng.random() < self._profile.failure_probability:
            self.failed += 1
            return Fail(id=self._id(), job_id=work.job_id, token=work.token, error="simulated failure")
        self.completed += 1
        return Complete(id=self._id(), job_id=work.job_id, token=work.token, result={"ok": True})

    def _ask(self, work: _Work, message: FromRobot) -> Effect:
        self._asked[str(message.id)] = work.job_id
        return Say(message)

    def _beat(self, now_ns: int, rng: Random) -> list[Effect]:
        if self._beat_ns is None or not self._heartbeat_ms or self._beat_ns > now_ns:
            return []
        spread = rng.uniform(1 - HEARTBEAT_JITTER, 1 + HEARTBEAT_JITTER)
        self._beat_ns = now_ns + int(self._heartbeat_ms * MS * spread)
        busy = bool(self._works)
        self._cpu = _wander(self._cpu, 5.0, 60.0 if busy else 5.0, 100.0, rng)
        self._memory = _wander(self._memory, 20.0, 900.0 if busy else 400.0, 4_096.0, rng)
        jobs = [JobToken(work.job_id, work.token) for work in self._works.values()]
        return [
            Say(
                Heartbeat(
                    status="busy" if busy else "idle",
                    cpu_percent=round(self._cpu, 1),
                    memory_mb=round(self._memory, 1),
                    jobs=jobs,
                )
            )
        ]

    def _ask_for_work(self, now_ns: int, rng: Random) -> list[Effect]:
        free = self._profile.max_concurrent_jobs - len(self._works)
        ready = self._heartbeat_ms and self._claim is None and not self._draining
        if free < 1 or not ready or self._claim_ns > now_ns:
            return []
        request_id = f"{rng.getrandbits(64):016x}"
        self._claim = ClaimJobs(
            id=self._id(),
            limit=min(free, 10),
            wait_ms=self._profile.claim_wait_ms,
            request_id=request_id,
        )
        self._claim_ns = now_ns + CLAIM_PAUSE_MS * MS
        return [Say(self._claim)]

    def _next_alarm(self) -> list[Effect]:
        times = [work.ends_ns for work in self._works.values() if work.report is None]
        if self._beat_ns is not None and self._heartbeat_ms:
            times.append(self._beat_ns)
            free = len(self._works) < self._profile.max_concurrent_jobs
            if free and self._claim is None and not self._draining:
                times.append(self._claim_ns)
        return [WakeAt(min(times))] if times else []

    def _id(self) -> str:
        self._ids += 1
        return str(self._ids)


def _wander(value: float, step: float, centre: float, top: float, rng: Random) -> float:
    """One step of a random walk in [0, top] that is drawn back to `centre`."""
    return min(top, max(0.0, value + rng.uniform(-step, step) + 0.1 * (centre - value)))
