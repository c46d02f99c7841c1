"""Robots and producers behind a proxy, and the judgement on what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from chaos.producers import Clerk, Producer
from chaos.promises import last_states_missing
from chaos.robots import Crowd
from chaos.watchers import Watcher
from checkers import history, lifecycle, outcomes
from checkers.history import AnyRecord, Change, Evidence, Recorder, ops_of
from checkers.job_model import Bounds
from checkers.violation import Violation
from conftest import World

from fleet.events import LIVE_JOBS, ROBOT_STATUS
from fleet.job import Job, JobStatus
from fleet.limits import MS, Limits
from network.proxy import Proxy
from simulators.robot import RobotProfile

PROFILE = RobotProfile(
    service_mean_s=0.3, failure_probability=0.05, max_concurrent_jobs=2, claim_wait_ms=1_000
)
DAY_S = 86_400.0


class Inhabited:
    """Robots, producers and watchers, which are those of `chaos`."""

    def __init__(
        self, world: World, proxy: Proxy, robots: int, producers: int, patience_s: float, seed: int
    ) -> None:
        self.records: list[AnyRecord] = []
        self._world = world
        recorder = Recorder(self.records.append)
        url, token = f"http://127.0.0.1:{proxy.port}", world.token("operator", DAY_S)
        self.crowd = Crowd(url, token, robots, PROFILE, seed, recorder)
        self.clerk = Clerk(url, {"Authorization": f"Bearer {token}"}, recorder, patience_s)
        names = [f"producer-{number}" for number in range(producers)]
        self.producers = [Producer(name, self.clerk, seed, pause_s=0.5) for name in names]
        self.watchers = [Watcher(url, token, name, seed) for name in (LIVE_JOBS, ROBOT_STATUS)]

    @classmethod
    @asynccontextmanager
    async def behind(
        cls, proxy: Proxy, world: World, robots: int, producers: int, patience_s: float, seed: int
    ) -> AsyncIterator[Inhabited]:
        here = cls(world, proxy, robots, producers, patience_s, seed)
        watching = [asyncio.create_task(watcher.run()) for watcher in here.watchers]
        here.crowd.start()
        try:
            while not all(watcher.stream.since for watcher in here.watchers):
                await asyncio.sleep(0.01)  # from here on, each is to be told of everything
            yield here
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await here.crowd.stop()
            await here.clerk.close()

    async def work(self, trouble: Awaitable[Any]) -> None:
        """Until the trouble is over, every submit has a definite answer, and every job has ended."""
        producing = asyncio.gather(*(producer.run() for producer in self.producers))
        try:
            await trouble
            for producer in self.producers:
                producer.enough.set()
            await producing
        finally:
            producing.cancel()
        while (jobs := (await self._world.fleet.counts())[1]).pending + jobs.running:
            await asyncio.sleep(0.05)

    # -- what came of it

    async def holes(self) -> list[str]:
        """Of the watchers, once they were told how every job ended: what was kept from them in silence."""
        states = {job.job_id: str(job.status) for job in await self.jobs()}
        while last_states_missing(self.watchers[0].stream, "job_id", states):
            await asyncio.sleep(0.05)
        return [hole for watcher in self.watchers for hole in watcher.stream.holes]

    async def jobs(self) -> list[Job]:
        """All, as the fleet shows them to who has no proxy before it."""
        found: list[Job] = []
        query: dict[str, Any] = {"limit": 500}
        async with self._world.http() as http:
            while True:
                page = (await http.get("/jobs", params=query)).json()
                found += msgspec.convert(page["jobs"], list[Job])
                if page["next_cursor"] is None:
                    return found
                query["cursor"] = page["next_cursor"]

    async def events(self, feed: str) -> list[Any]:
        """From the first one to the newest."""
        fleet = self._world.fleet
        head = await fleet.read(feed, "", 0, 0)
        events: list[Any] = []
        while len(events) < head.offset:
            page = await fleet.read(feed, head.epoch, len(events), 1_000)
            assert page.recovered
            events += map(msgspec.json.decode, page.events)
        return events

    async def violations(self, limits: Limits) -> list[Violation]:
        jobs = await self.jobs()
        changes = await self._changes({job.job_id: job.status for job in jobs})
        finals = {job.job_id: history.final_of(job, changes[job.job_id]) for job in jobs}
        ops = sorted(ops_of(self.records), key=lambda op: op.invoked_ns)
        evidence = Evidence(ops, finals, drained=True)
        bounds = Bounds(
            lease_ns=limits.lease_ms * MS, cancel_grace_ns=limits.cancel_grace_ms * MS, timeouts=True
        )
        return [*outcomes.check(evidence), *lifecycle.check(evidence, bounds)]

    async def _changes(self, ended: dict[str, JobStatus]) -> dict[str, list[Change]]:
        """Of each job, to its end. Watchers are told a little after those who wait for an answer."""
        while True:
            changes: dict[str, list[Change]] = {job_id: [] for job_id in ended}
            for event in await self.events(LIVE_JOBS):
                changes[event["job_id"]].append(Change(JobStatus(event["status"])))
            if {job_id: told[-1].status for job_id, told in changes.items() if told} == ended:
                return changes
