"""One run: a server, its clients, its faults, the quiet afterwards, and what the checkers say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
from checkers import history, lifecycle, outcomes
from checkers.history import Change, Evidence, FinalJob, Recorder, recorder_to
from checkers.job_model import Bounds
from checkers.violation import Violation

from chaos.house import House, Process
from chaos.plan import ActorFault, Plan, RobotFault, plan
from chaos.probes import Prober, key_reaches_the_door
from chaos.producers import Clerk, Producer
from chaos.promises import (
    Clock,
    Done,
    Promise,
    answers_promise,
    last_states_missing,
    offline_promise,
    readiness_promise,
    recovery_promise,
    regrant_promises,
    regrants,
    robot_answers_promise,
    stream_promise,
)
from chaos.resources import EVERY_S, Resources, Slope
from chaos.robots import Crowd
from chaos.watchers import Watcher
from fleet.job import TERMINAL, Job, JobStatus
from fleet.limits import MS, Limits
from simulators.robot import RobotProfile

BEAT_MS = 1_000
PRODUCERS = 8
DRAIN_S = 120.0
PATIENCE_S = 5.0
# What a run would otherwise have to wait out. So little in memory that old jobs and replies are read again,
# and that every bound is reached within minutes: what still grows then is a leak.
LIMITS = {
    "heartbeat_interval_ms": BEAT_MS,
    "missed_heartbeats": 5,  # a call that is lost, and lost again, takes two seconds of them
    "min_lease_ms": 3 * BEAT_MS,
    "cancel_grace_ms": 3_000,
    "backoff_base_ms": 200,
    "max_finished": 1_000,
    "max_remembered": 2_000,
    "feed_events": 5_000,
}
# One call in fifty between processes of the fleet is lost, or its answer is.
LOSSES = {
    "CoreWorkerService.grpc_client.PushTask": {
        "num_failures": -1,
        "req_failure_prob": 1,
        "resp_failure_prob": 1,
    }
}
# How long a caller waits to learn whether the other is dead, before a lost call is told as such.
NOT_FOR_LONG = {
    "RAY_timeout_ms_task_wait_for_death_info": "200",
    "RAY_core_worker_internal_heartbeat_ms": "100",
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    seconds: float
    every_s: float
    robots: int
    jobs_per_s: float
    store: str = ""
    losses: bool = True
    folder: Path


class Outcome(msgspec.Struct, kw_only=True):
    options: Options
    promises: list[Promise]
    violations: list[Violation]
    done: list[Done]
    robot_faults: dict[str, int]
    ops: dict[tuple[str, str], int]
    jobs: dict[str, int]
    stale_refused: int
    slopes: dict[str, Slope]
    left_behind: list[str]

    @property
    def good(self) -> bool:
        return not self.violations and not self.left_behind and all(promise.kept for promise in self.promises)


def environment(options: Options) -> dict[str, str]:
    given = {"FLEETCAST_LIMITS": json.dumps(LIMITS)}
    if options.losses:
        given |= {"RAY_testing_rpc_failure": json.dumps(LOSSES), **NOT_FOR_LONG}
    return given


class Run:
    """The parts of a run, made once the server is up."""

    def __init__(self, options: Options, house: House, url: str, recorder: Recorder) -> None:
        self.options = options
        self.house = house
        self.clock = Clock()
        self.limits = Limits(**LIMITS)
        operator = {"Authorization": f"Bearer {house.token('operator')}"}
        admin = {"Authorization": f"Bearer {house.token('admin')}"}
        self.clerk = Clerk(url, operator, recorder)
        self.admin = Clerk(url, admin, recorder)
        self.nobody = Clerk(url, {}, recorder)
        self.door = Clerk(url, operator, recorder)
        profile = RobotProfile(service_mean_s=1.5, failure_probability=0.05, claim_wait_ms=3_000)
        self.crowd = Crowd(url, house.token("operator"), options.robots, profile, options.seed, recorder)
        seed, token = options.seed, house.token("viewer")
        self.watchers = {name: Watcher(url, token, name, seed) for name in ("live-jobs", "robot-status")}
        self.producers = [
            Producer(f"producer-{n}", self.clerk, seed, PRODUCERS * 2.75 / options.jobs_per_s)
            for n in range(PRODUCERS)
        ]
        self.resources = Resources(house)
        self.done: list[Done] = []
        self.robot_faults: dict[str, int] = {}
        self.prober: Prober | None = None
        self._recoveries: set[asyncio.Task[None]] = set()
        self._stopped: set[int] = set()

    # -- before

    async def begin(self) -> None:
        self.crowd.start()
        await self.crowd.wait_until_steady()
        invoked = self.clerk.recorder.invoke("prober", history.Submit(["probe"]))
        answer = await self.clerk.ask(
            "POST", "/jobs", json={"name": "probe", "payload": {"submission": "probe"}}
        )
        self.clerk.end(invoked, answer, history.Created([answer.body["job_id"]]))
        self.prober = Prober(self.clerk, self.door, answer.body["job_id"], next(iter(self.crowd.robots)))

    # -- the faults

    async def harm(self, decided: Plan) -> None:
        began = time.monotonic()
        await asyncio.gather(
            self._harm_actors(decided.actors, began), self._harm_robots(decided.robots, began)
        )
        await asyncio.sleep(max(0.0, began + self.options.seconds - time.monotonic()))

    async def _harm_actors(self, faults: list[ActorFault], began: float) -> None:
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, began + fault.at_s - time.monotonic()))
                group.create_task(self._harm_actor(fault))

    async def _harm_actor(self, fault: ActorFault) -> None:
        victim = await self._victim(fault)
        if victim is None:
            return
        done = Done(fault, victim.pid, time.monotonic_ns())
        if fault.act == "kill":
            victim.send(signal.SIGKILL)
        else:
            self._stopped.add(victim.pid)
            self.house.stop(victim)
            await asyncio.sleep(fault.for_s)
            self.house.go_on(victim)
            self._stopped.discard(victim.pid)
            done.over_ns = time.monotonic_ns()
        self.done.append(done)
        task = asyncio.get_running_loop().create_task(self._see_back(done))
        self._recoveries.add(task)

    async def _victim(self, fault: ActorFault) -> Process | None:
        """Also one that is stopped, to kill it. None where nobody is there for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = await asyncio.to_thread(self.house.actors, fault.actor)
                    if fault.act == "stop":
                        found = [process for process in found if process.pid not in self._stopped]
                    if found:
                        return found[int(fault.dice * len(found))]
                    await asyncio.sleep(0.1)
        return None

    async def _see_back(self, done: Done) -> None:
        """Notes when it works again, as its users see it."""
        from_ns = done.over_ns or done.at_ns
        match done.fault.actor:
            case "job-store" | "registry" as room:
                assert self.prober is not None
                while (back_ns := self.prober.back_after(room, from_ns)) is None:
                    await asyncio.sleep(0.05)
                done.back_ns = back_ns
            case "broadcaster":
                key = key_reaches_the_door(self.admin, self.nobody, next(iter(self.crowd.robots)))
                feeds = (self._see_event(name, from_ns) for name in self.watchers)
                await asyncio.gather(key, *feeds)
                done.back_ns = time.monotonic_ns()
            case "metrics":
                await self._see_metrics(from_ns)
                done.back_ns = time.monotonic_ns()

    async def _see_event(self, name: str, from_ns: int) -> None:
        events = self.watchers[name].stream.events
        while not events or self.clock.monotonic_ns(events[-1].at_wall_ns) <= from_ns:
            await asyncio.sleep(0.05)

    async def _see_metrics(self, from_ns: int) -> None:
        while True:
            answer = await self.door.ask("GET", "/metrics/fleet")
            if answer.status == 200:
                return
            await asyncio.sleep(0.05)

    async def _harm_robots(self, faults: list[RobotFault], began: float) -> None:
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at_s - time.monotonic()))
            robot = self.crowd.pick(fault.dice)
            if robot is None:
                continue
            self.robot_faults[fault.harm] = self.robot_faults.get(fault.harm, 0) + 1
            match fault.harm:
                case "vanish":
                    self.crowd.orphans += robot.leave(None)
                case "leave":
                    self.crowd.orphans += robot.leave(fault.for_s)
                case "freeze":
                    robot.freeze(fault.for_s)
                case "reset":
                    robot.reset()

    # -- the quiet

    async def drain(self) -> bool:
        """Whether every job ended. The producers are done before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await asyncio.gather(*self._recoveries)
                while not await self._drained():
                    await asyncio.sleep(0.5)
                return True
        return False

    async def _drained(self) -> bool:
        for status in set(JobStatus) - TERMINAL:
            answer = await self.clerk.ask("GET", f"/jobs?status={status}&limit=1")
            if answer.status != 200 or answer.body["jobs"]:
                return False
        return True

    async def final_jobs(self) -> list[Job]:
        return [msgspec.convert(job, Job) for job in await self._pages("jobs", limit=500)]

    async def _pages(self, what: str, **query: Any) -> list[Any]:
        found: list[Any] = []
        while True:
            path = f"/{what}?{httpx.QueryParams(query)}"
            answer = await self.clerk.ask("GET", path)
            if answer.status != 200:
                await asyncio.sleep(0.5)
                continue
            found += answer.body[what]
            if answer.body["next_cursor"] is None:
                return found
            query["cursor"] = answer.body["next_cursor"]

    async def robots_now(self) -> dict[str, str]:
        while (answer := await self.clerk.ask("GET", "/robots?limit=500")).status != 200:
            await asyncio.sleep(0.5)
        return {robot["robot_id"]: robot["status"] for robot in answer.body["robots"]}

    async def close(self) -> None:
        await self.crowd.stop()
        for clerk in (self.clerk, self.admin, self.nobody, self.door):
            await clerk.close()


@contextlib.asynccontextmanager
async def _alongside(*works: Any) -> AsyncIterator[None]:
    """Cancels them at the end; raises what one of them raised before."""
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(options: Options) -> Outcome:
    """Whatever happens, the server and all below it are gone in the end."""
    options.folder.mkdir(parents=True, exist_ok=True)
    record = options.folder / "history.jsonl"
    arguments = ["--store", options.store] if options.store else []
    house = House(options.folder, environment(options), arguments)
    try:
        url = await asyncio.to_thread(house.wait_until_up)
        this = Run(options, house, url, recorder_to(record))
        try:
            gathered = await _live(this)
        finally:
            await this.close()
    except BaseException:
        house.close()
        raise
    left = await asyncio.to_thread(house.close)
    return _judge(this, record, *gathered, left)


async def _live(this: Run) -> tuple[list[Job], bool, list[str]]:
    await this.begin()
    assert this.prober is not None
    decided = plan(
        this.options.seed, this.options.seconds, this.options.every_s, this.limits.lease_ms / 1_000
    )
    watching = [watcher.run() for watcher in this.watchers.values()]
    async with _alongside(*watching, this.prober.run(), _sample(this.resources)):
        producing = asyncio.gather(*(producer.run() for producer in this.producers))
        try:
            await this.harm(decided)
            for producer in this.producers:
                producer.enough.set()
            await producing
        finally:
            producing.cancel()
        drained = await this.drain()
        jobs = await this.final_jobs()
        missing = await _last_words(this, jobs)
        await this.prober.settle()
    return jobs, drained, missing


async def _last_words(this: Run, jobs: list[Job]) -> list[str]:
    """Watchers are given a few seconds to hear what is."""
    streams = {name: watcher.stream for name, watcher in this.watchers.items()}
    states = {job.job_id: str(job.status) for job in jobs}
    missing: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(15):
            while True:
                missing = last_states_missing(streams["live-jobs"], "job_id", states)
                missing += last_states_missing(streams["robot-status"], "robot_id", await this.robots_now())
                if not missing:
                    break
                await asyncio.sleep(0.5)
    return missing


async def _sample(resources: Resources) -> None:
    while True:
        await asyncio.to_thread(resources.look)
        await asyncio.sleep(EVERY_S)


# -- the verdict


def _judge(
    this: Run, record: Path, jobs: list[Job], drained: bool, missing: list[str], left: list[str]
) -> Outcome:
    ops = history.read([record])
    finals = _finals(this, jobs)
    evidence = Evidence(ops, finals, drained=True)
    bounds = Bounds(
        lease_ns=this.limits.lease_ms * MS, cancel_grace_ns=this.limits.cancel_grace_ms * MS, timeouts=True
    )
    violations = outcomes.check(evidence) + lifecycle.check(evidence, bounds)
    counts: dict[tuple[str, str], int] = {}
    for op in ops:
        name = type(op.call).__name__.lower()
        counts[name, op.outcome] = counts.get((name, op.outcome), 0) + 1
    statuses: dict[str, int] = {}
    for job in jobs:
        statuses[job.status] = statuses.get(job.status, 0) + 1
    return Outcome(
        options=this.options,
        promises=_promises(this, finals, missing, drained),
        violations=violations,
        done=this.done,
        robot_faults=this.robot_faults,
        ops=counts,
        jobs=statuses,
        stale_refused=this.crowd.stale_refused(),
        slopes=this.resources.slopes(),
        left_behind=left,
    )


def _finals(this: Run, jobs: list[Job]) -> dict[str, FinalJob]:
    """With what live-jobs told of each, where it told everything."""
    stream = this.watchers["live-jobs"].stream
    if stream.gaps or stream.holes:
        return {job.job_id: history.final_of(job) for job in jobs}
    changes: dict[str, list[Change]] = {}
    for event in stream.events:
        changes.setdefault(event.data["job_id"], []).append(Change(JobStatus(event.data["status"])))
    # The first job was there before anybody watched.
    return {
        job.job_id: history.final_of(job, changes.get(job.job_id) if job.name != "probe" else None)
        for job in jobs
    }


def _promises(this: Run, finals: dict[str, FinalJob], missing: list[str], drained: bool) -> list[Promise]:
    assert this.prober is not None
    limits, streams = this.limits, {name: watcher.stream for name, watcher in this.watchers.items()}
    lease_s, beat_s = limits.lease_ms / 1_000, BEAT_MS / 1_000
    offline_s = limits.offline_after_ms_at(BEAT_MS) / 1_000
    found, never = regrants(
        this.crowd.orphans,
        streams["live-jobs"],
        finals,
        this.done,
        this.clock,
        lease_s,
        limits.backoff_base_ms / 1_000,
    )
    told = {name: [each for each in missing if each.startswith(name)] for name in streams}
    return [
        Promise("every job ends", f"{len(finals)} jobs", [] if drained else ["some did not"]),
        *regrant_promises(found, never),
        recovery_promise(this.done),
        answers_promise(this.clerk.answers + this.admin.answers + this.nobody.answers),
        robot_answers_promise(this.crowd.robots.values()),
        readiness_promise(this.done, this.prober),
        offline_promise(
            this.crowd.robots, streams["robot-status"], this.done, this.clock, offline_s + beat_s + 1.0
        ),
        *(stream_promise(stream, told[name]) for name, stream in streams.items()),
    ]
