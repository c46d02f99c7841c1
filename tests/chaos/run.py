"""One run: a server, its clients, its faults, and the quiet afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
from checkers import history
from checkers.history import Recorder

from chaos.house import House, Process
from chaos.options import LIMITS, Options
from chaos.plan import ActorFault, Plan, RobotFault, plan
from chaos.probes import Prober, key_reaches_the_door
from chaos.producers import Clerk, Producer
from chaos.promises import Clock, Done, LostLease, last_states_missing, storms
from chaos.resources import EVERY_S, Resources
from chaos.robots import Crowd
from chaos.watchers import Watcher
from fleet.job import TERMINAL, Job, JobStatus
from fleet.limits import Limits
from fleet.wall_time import wall_ns_of
from simulators.robot import RobotProfile

PRODUCERS = 8
DRAIN_S = 120.0
PATIENCE_S = 5.0


class Gathered(msgspec.Struct, frozen=True):
    """What the server shows in the end. `drained`: every job ended in time. `missing`: what watchers were
    not told of it."""

    jobs: list[Job]
    drained: bool
    missing: list[str]
    lost_leases: list[LostLease]


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
        self.resources = Resources(house, options.folder / "resources.jsonl")
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
                    self.crowd.lose(robot)
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
        found: dict[str, str] = {}
        while True:
            answer = await self.clerk.ask("GET", f"/robots?limit=500&offset={len(found)}")
            if answer.status != 200:
                await asyncio.sleep(0.5)
                continue
            found |= {robot["robot_id"]: robot["status"] for robot in answer.body["robots"]}
            if len(found) >= answer.body["total"] or not answer.body["robots"]:
                return found

    async def lost_leases(self) -> list[LostLease]:
        """Those that ended just after the job store went on, by the history of the jobs that this may be."""
        after = storms(self.done)
        back = {
            event.data["job_id"]
            for event in self.watchers["live-jobs"].stream.events
            if event.data["status"] == JobStatus.PENDING
            and any(out.holds(self.clock.monotonic_ns(event.at_wall_ns)) for out in after)
        }
        return [lost for job_id in sorted(back) for lost in await self._lost_leases_of(job_id)]

    async def _lost_leases_of(self, job_id: str) -> list[LostLease]:
        while (answer := await self.clerk.ask("GET", f"/jobs/{job_id}/history")).status != 200:
            await asyncio.sleep(0.5)
        lost, robot_id = [], ""
        for event in answer.body["events"]:
            robot_id = event.get("robot_id", robot_id)
            if event["event"] == "lease_expired":
                lost.append(LostLease(job_id, robot_id, wall_ns_of(event["at"])))
        return lost

    async def close(self) -> None:
        await self.crowd.stop()
        self.resources.close()
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


async def live(this: Run) -> Gathered:
    await this.begin()
    assert this.prober is not None
    options = this.options
    decided = plan(options.seed, options.seconds, options.every_s, this.limits.lease_ms / 1_000)
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
        lost = await this.lost_leases()
        await this.prober.settle()
    return Gathered(jobs, drained, missing, lost)


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
