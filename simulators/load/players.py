"""Who takes part in a run: actors of watchers, robots and jobs, and what they have told so far."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from simulators.load.clock import agree
from simulators.load.fleet import FleetReport, LoadFleet, Sent
from simulators.load.job_book import JobBook
from simulators.load.job_load import JobLoad, JobsReport
from simulators.load.latency import Latencies
from simulators.load.usage import NodeUsage, UsageSampler, node_name
from simulators.load.venue import Venue
from simulators.load.watchers import (
    Judged,
    Origin,
    Second,
    WatcherCrowd,
    WatchersReport,
    latencies,
)
from simulators.scenario import Fleet, Scenario, Watchers

ROBOTS_PER_ACTOR = {"sockets": 5_000, "gateways": 50_000}
WATCHERS_PER_ACTOR = 250


class FleetPlayer(msgspec.Struct):
    name: str
    actor: Any
    spec: Fleet
    cursor: int = 0
    report: FleetReport | None = None

    @property
    def there(self) -> bool:
        return self.report is not None and self.report.connected >= self.spec.count


class WatchersPlayer(msgspec.Struct):
    actor: Any
    spec: Watchers
    cursor: int = 0
    report: WatchersReport | None = None

    @property
    def there(self) -> bool:
        """Those who come and go are never all there."""
        if self.report is None:
            return False
        return self.spec.behaviour in ("reconnecting", "garbage") or self.report.connected >= self.spec.count

    @property
    def told_of_events(self) -> bool:
        """The others hear something each second, whatever happens."""
        return self.spec.endpoint in ("robot-status", "live-jobs")


class JobsPlayer(msgspec.Struct):
    actor: Any
    cursor: int = 0
    report: JobsReport | None = None


class Players:
    """Their names begin with `run`."""

    def __init__(self, scenario: Scenario, folder: Path, venue: Venue, run: str) -> None:
        self.book = JobBook()
        self.seconds: dict[int, list[Second]] = {}
        self.clock_error_ms = 0.0
        where, spawn = (venue.url, venue.token), venue.spawn
        robots = [(_robots_of(name), fleet.count) for name, fleet in scenario.fleets.items()]
        self.watchers = []
        for name, spec in scenario.watchers.items():
            for first, count in _parts(spec.count, WATCHERS_PER_ACTOR):
                some, seed = spec.model_copy(update={"count": count}), scenario.seed * 1_000 + first
                actor = spawn(f"{run}-watchers-{name}-{first}", WatcherCrowd, *where, some, robots, seed)
                self.watchers.append(WatchersPlayer(actor, some))
        self.fleets = []
        works = scenario.jobs is not None
        for name, fleet in scenario.fleets.items():
            for first, count in _parts(fleet.count, ROBOTS_PER_ACTOR[fleet.drive]):
                part, given = fleet.model_copy(update={"count": count}), (works, scenario.seed, first + 1)
                label = f"{run}-fleet-{name}-{first}"
                actor = spawn(label, LoadFleet, *where, _robots_of(name), part, *given)
                self.fleets.append(FleetPlayer(name, actor, part))
        self.jobs: JobsPlayer | None = None
        if scenario.jobs is not None:
            what = (scenario.jobs, scenario.load, scenario.seed, str(folder), run)
            self.jobs = JobsPlayer(spawn(f"{run}-jobs", JobLoad, *where, *what))
        ours = frozenset(role.__name__ for role in (WatcherCrowd, LoadFleet, JobLoad))
        where_from = (venue.url, node_name(), venue.server_actors, ours)
        self._samplers = venue.spawn_everywhere(f"{run}-usage", UsageSampler, *where_from)

    def _actors(self) -> list[Any]:
        jobs = [self.jobs.actor] if self.jobs else []
        return [each.actor for each in self.watchers] + [each.actor for each in self.fleets] + jobs

    # -- what they are told

    async def agree_on_time(self) -> None:
        self.clock_error_ms = max([await agree(actor) for actor in self._actors()], default=0.0)

    async def start_watchers(self) -> None:
        await asyncio.gather(*(each.actor.start() for each in self.watchers))

    async def start_fleets(self) -> None:
        await asyncio.gather(*(each.actor.start() for each in self.fleets))

    async def measure(self) -> None:
        measurers = [each.actor for each in self.watchers] + [each.actor for each in self.fleets]
        await asyncio.gather(*(actor.measure() for actor in measurers))

    async def start_jobs(self, begins_us: int) -> None:
        if self.jobs is not None:
            await self.jobs.actor.start(begins_us)

    async def lose_robots(self, fleet: str, share: float, lasts_s: float | None) -> None:
        those = [each.actor for each in self.fleets if each.name == fleet]
        await asyncio.gather(*(actor.lose(share, lasts_s) for actor in those))

    async def drop_watchers(self) -> None:
        await asyncio.gather(*(each.actor.drop() for each in self.watchers))

    async def hush(self) -> None:
        jobs = [self.jobs.actor] if self.jobs else []
        await asyncio.gather(*(actor.hush() for actor in [*(each.actor for each in self.fleets), *jobs]))

    async def fall_silent(self) -> None:
        await asyncio.gather(*(each.actor.fall_silent() for each in self.fleets))

    async def stop(self) -> None:
        """One that is gone does not keep the others up."""
        await asyncio.gather(*(actor.stop() for actor in self._actors()), return_exceptions=True)

    # -- what they tell

    async def look(self) -> None:
        """Fetches what everybody has to say, and passes on what others must know."""
        await asyncio.gather(
            *(self._look_at_fleet(each) for each in self.fleets),
            *(self._look_at_watchers(each) for each in self.watchers),
            self._look_at_jobs(),
        )

    async def usage(self) -> list[NodeUsage]:
        """Of each node that can say; once of a machine that is two nodes to Ray."""
        samples = await asyncio.gather(*(each.sample() for each in self._samplers), return_exceptions=True)
        return list({each.node: each for each in samples if isinstance(each, NodeUsage)}.values())

    async def _look_at_fleet(self, fleet: FleetPlayer) -> None:
        report: FleetReport = await fleet.actor.report(fleet.cursor)
        fleet.report, fleet.cursor = report, fleet.cursor + len(report.words)
        await self._teach(self.book.worked(report.words))

    async def _look_at_watchers(self, watchers: WatchersPlayer) -> None:
        report: WatchersReport = await watchers.actor.report(watchers.cursor)
        watchers.report, watchers.cursor = report, watchers.cursor + len(report.seconds)
        for second in report.seconds:
            self.seconds.setdefault(second.second, []).append(second)

    async def _look_at_jobs(self) -> None:
        if self.jobs is not None:
            report: JobsReport = await self.jobs.actor.report(self.jobs.cursor)
            self.jobs.report, self.jobs.cursor = report, self.jobs.cursor + len(report.words)
            await self._teach(self.book.submitted(report.words))

    async def _teach(self, origins: list[Origin]) -> None:
        those = [each.actor for each in self.watchers if each.spec.endpoint == "live-jobs"]
        if origins:
            await asyncio.gather(*(actor.learn(origins) for actor in those))

    @property
    def under_way(self) -> bool:
        """Whether jobs are still to come, or to end, or messages to leave."""
        submitted = self.jobs is None or (self.jobs.report is not None and self.jobs.report.done)
        held = any(each.held for each in self.fleet_reports())
        return not submitted or held or bool(self.book.open)

    def fleet_reports(self) -> list[FleetReport]:
        return [each.report for each in self.fleets if each.report]

    def watcher_reports(self) -> list[WatchersReport]:
        return [each.report for each in self.watchers if each.report]

    def events(self) -> int:
        return sum(each.report.received for each in self.watchers if each.report and each.told_of_events)

    def lag(self) -> Latencies:
        jobs = [self.jobs.report.lag] if self.jobs and self.jobs.report else []
        return latencies([each.lag for each in self.fleet_reports()] + jobs)

    def beat_latency(self, conflated: bool) -> Latencies:
        """Of those who are told every heartbeat, or of those who are told the newest now and then."""
        those = [each for each in self.watchers if (each.spec.conflate is not None) == conflated]
        return latencies([each.report.beat_latency for each in those if each.report])

    def latencies(self) -> dict[str, Latencies]:
        reports = self.watcher_reports()
        return {
            "heartbeat_to_watcher": self.beat_latency(conflated=False),
            "heartbeat_to_conflated": self.beat_latency(conflated=True),
            "job_to_watcher": latencies([each.job_latency for each in reports]),
            "read": latencies([each.reads for each in self.fleet_reports()]),
            **self.book.latencies,
        }

    # -- what they say in the end

    async def sent(self) -> Sent:
        """Of all fleets, in the order in which watchers know their robots."""
        parts: list[Sent] = await asyncio.gather(*(each.actor.sent() for each in self.fleets))
        cuts: dict[int, list[int]] = {}
        first = 0
        for part in parts:
            cuts |= {first + robot: numbers for robot, numbers in part.cuts.items()}
            first += len(part.numbers)
        numbers = [part.numbers for part in parts] or [np.zeros(0, dtype=np.int64)]
        return Sent(np.concatenate(numbers), cuts)

    async def judged(self, sent: Sent) -> list[Judged]:
        stories = await self._stories()
        judged: list[Judged] = await asyncio.gather(
            *(each.actor.judge(sent, stories) for each in self.watchers)
        )
        return judged

    async def _stories(self) -> dict[str, list[str]]:
        """Of our jobs alone: others may be using the server."""
        told: dict[str, list[str]] = {}
        for each in self.watchers:
            if each.spec.endpoint == "live-jobs":
                for job_id, story in (await each.actor.jobs_heard()).items():
                    if self.book.knows(job_id) and len(story) > len(told.get(job_id, ())):
                        told[job_id] = story
        return told


def added(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _robots_of(fleet: str) -> str:
    return f"load-{fleet}"


def _parts(count: int, most: int) -> list[tuple[int, int]]:
    """(first, count) of even parts that have `most` at most."""
    parts = -(-count // most)
    bounds = [count * part // parts for part in range(parts + 1)]
    return [(first, last - first) for first, last in pairwise(bounds)]
