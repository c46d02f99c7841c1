"""Simulated robots and producers, who repeat what was not answered under the same ids, as real ones do."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from random import Random
from typing import Any

from checkers import history
from checkers.world_clients import told_of

from actors.client import FleetClient
from fleet.errors import FleetError, Unavailable
from fleet.job import Job, JobEvent, JobStatus
from fleet.messages import (
    Answer,
    Beat,
    Cancel,
    Get,
    HeartbeatAnswer,
    JobSpec,
    JobToken,
    RegisterRobot,
    Report,
    RobotSpec,
)
from fleet.messages import Retry as RetryJob
from fleet.messages import Submit as SubmitJobs

E = JobEvent
GIVE_UP_S = 0.05  # one who waits no longer, and asks again under the same id


class Client:
    """`in_flight` counts its calls that have no answer yet."""

    def __init__(self, name: str, fleet: FleetClient, recorder: history.Recorder, rng: Random) -> None:
        self.name = name
        self.fleet = fleet
        self.rng = rng
        self.in_flight = 0
        self.calm = False
        self._recorder = recorder

    async def once(
        self, call: history.AnyCall, send: Callable[[], Awaitable[Any]], patience_s: float | None
    ) -> Any:
        """The answer, the error by which it was refused, or None if there was no answer."""
        invoked = self._recorder.invoke(self.name, call)
        self.in_flight += 1
        try:
            async with asyncio.timeout(patience_s):
                reply = await send()
        except (TimeoutError, Unavailable):
            self._recorder.unknown(invoked)
            return None
        except FleetError as refusal:
            self._recorder.fail(invoked, refusal.code)
            return refusal
        finally:
            self.in_flight -= 1
        self._recorder.ok(invoked, self._told(call, reply))
        return reply

    @staticmethod
    def _told(call: history.AnyCall, reply: Any) -> history.AnyTold:
        return told_of(call, reply.cancel if isinstance(call, history.Beat) else reply)

    async def until_answered(self, call: history.AnyCall, command: Any) -> Any:
        return await self.until_one_is_answered(call, itertools.repeat(command))

    async def until_one_is_answered(self, call: history.AnyCall, commands: Iterable[Any]) -> Any:
        """Each is the same to the fleet as the one before."""
        for command in commands:
            patience_s = GIVE_UP_S if self.rng.random() < 0.2 and not self.calm else None
            reply = await self.once(call, functools.partial(self._shielded, command), patience_s)
            if reply is not None:
                return reply

    async def _shielded(self, command: Any) -> Any:
        """One who gives up does not take back what was sent."""
        return await asyncio.shield(self.fleet.execute(command))


class Producer(Client):
    """Never ends by itself: a submit, a look, a cancel, a retry; and again."""

    async def run(self) -> None:
        for number in itertools.count():
            names = await self._submit(f"{self.name}.{number}")
            for job_id in names or [f"{self.name}.nothing"]:
                await self._follow(job_id)

    async def _submit(self, key: str) -> list[str]:
        submissions = [f"{key}.{n}" for n in range(self.rng.choice([1, 1, 3]))]
        more: dict[str, Any] = {"max_attempts": self.rng.randint(1, 3)}
        specs = [JobSpec(name="weld", payload={"submission": one}, **more) for one in submissions]
        call = history.Submit(submissions, key, **more)
        same = SubmitJobs([f"job-{one}" for one in submissions], specs)
        commands = keyed(key, specs) if self.rng.random() < 0.5 else itertools.repeat(same)
        reply = await self.until_one_is_answered(call, commands)
        return [job.job_id for job in reply] if isinstance(reply, list) else []

    async def _follow(self, job_id: str) -> None:
        if self.rng.random() < 0.2:
            name = f"{job_id}.cancel"
            await self.until_answered(history.Cancel(job_id, name), Cancel(job_id, request_id=name))
        job = await self.until_answered(history.Read(job_id), Get(job_id))
        if isinstance(job, Job) and job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            again = f"{job_id}.again"
            await self.until_answered(history.Retry(job_id, again), RetryJob(job_id, again))


def keyed(key: str, specs: list[JobSpec]) -> Iterator[SubmitJobs]:
    """By the client's own key alone: every door that is asked makes other ids."""
    for attempt in itertools.count():
        names = [f"job-{key}.{attempt}.{place}" for place in range(len(specs))]
        yield SubmitJobs(names, specs, request_id=key, fingerprint="f")


class Robot(Client):
    """Claims, works, reports, and beats beside it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._works: dict[str, int] = {}
        self._stop: set[str] = set()
        self._requests = itertools.count(1)

    async def run(self) -> None:
        spec = RobotSpec(robot_id=self.name, environment="e", max_concurrent_jobs=2)
        await self.fleet.administer(RegisterRobot(spec))
        await asyncio.gather(self._work(), self._beat())

    async def _work(self) -> None:
        for number in self._requests:
            for job_id, token in await self._claim(f"{self.name}.{number}"):
                self._works[job_id] = token
            for job_id, token in list(self._works.items()):
                await self._do(job_id, token)

    async def _claim(self, request_id: str) -> list[tuple[str, int]]:
        limit = self.rng.randint(1, 2)
        call = history.Claim(self.name, request_id, limit)
        wait_ms = self.rng.choice([0, 100, 300])
        # The first of all is left without an answer, so that it is known that robots may be granted jobs
        # of which they never hear: by a claim that a door repeated, too.
        leaves = request_id.endswith(".1") or (self.rng.random() < 0.05 and not self.calm)
        answer = await self.once(
            call, lambda: self._claimed(request_id, limit, wait_ms), GIVE_UP_S if leaves else None
        )
        return [(one.job.job_id, one.token) for one in answer.grants] if isinstance(answer, Answer) else []

    async def _claimed(self, request_id: str, limit: int, wait_ms: int) -> Answer:
        """One who leaves takes its claim back, and what it was granted goes to others."""
        claim = self.fleet.claim(self.name, request_id, limit, wait_ms)
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:
            self.fleet.withdraw(self.name, request_id, claim)
            raise

    async def _do(self, job_id: str, token: int) -> None:
        dice = self.rng.random()
        if dice < 0.03 and not self.calm:
            del self._works[job_id]  # forgotten: its lease will end
            return
        if await self._say(E.START, job_id, token):
            if dice < 0.3:
                await self._say(E.PROGRESS, job_id, token)
            if job_id in self._stop:
                await self._say(E.CANCELLED, job_id, token)
            else:
                await self._say(self._end(), job_id, token)
        self._works.pop(job_id, None)
        self._stop.discard(job_id)

    def _end(self) -> JobEvent:
        if self.calm:
            return E.COMPLETE
        return self.rng.choices([E.COMPLETE, E.FAIL, E.RELEASE], [70, 20, 10])[0]

    async def _say(self, event: JobEvent, job_id: str, token: int) -> bool:
        call = history.Report(event, job_id, self.name, token)
        report = Report(event, job_id, self.name, token, result={"by": self.name}, progress=50.0)
        return isinstance(await self.until_answered(call, report), Job)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0.05, 0.15))
            if self._works:
                await self._beat_once([JobToken(job_id, token) for job_id, token in self._works.items()])

    async def _beat_once(self, jobs: list[JobToken]) -> None:
        beat = Beat(self.name, "busy", job_ids=[job.job_id for job in jobs])
        answer = await self.once(
            history.Beat(self.name, jobs), lambda: self.fleet.heartbeat(beat, jobs), None
        )
        if isinstance(answer, HeartbeatAnswer):
            self._stop.update(answer.cancel)
