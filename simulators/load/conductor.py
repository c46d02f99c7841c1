"""Runs a scenario: brings everybody up, lets them play, waits for the last notes, and asks what was heard."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from fleet.errors import Misuse
from fleet.wall_time import rfc3339
from simulators.load import outcome
from simulators.load.latency import Latencies
from simulators.load.ledger import Tally
from simulators.load.outcome import Generator, JobFigures, Outcome, Rates
from simulators.load.players import Players, added
from simulators.load.server import Server
from simulators.load.usage_log import UsageLog
from simulators.load.venue import Venue
from simulators.load.watchers import latencies
from simulators.scenario import (
    ActorFault,
    Fault,
    RobotFault,
    Scenario,
    TraceArrivals,
    WatcherFault,
)
from simulators.trace import read_trace

EVERY_S = 1.0
CONNECT_S = 120.0
CALM_S = 30.0  # at most
CALM_MS = 50.0  # p99 of the heartbeats of a second
CALM_FACTOR = 1.1
SETTLE_S = 2.0  # without an event, before nothing more is expected
QUIET_S = 15.0  # at most, after the last heartbeat
GONE_S = 15.0  # without an answer, before a server is given up
TERMINAL = ("completed", "failed", "cancelled")


class Moment(msgspec.Struct, frozen=True):
    """A second of a run, for people who watch it and for the series. `phase` is connecting, settling, running
    or draining; counts are of all since the beginning. What the server does not tell is None."""

    phase: str
    at_s: float
    lasts_s: float
    robots: int
    connected_robots: int
    watchers: int
    connected_watchers: int
    beats_offered: int
    beats_sent: int
    events: int
    jobs_offered: int
    jobs_accepted: int
    jobs_completed: int
    jobs_open: int
    latency_p50_ms: float
    latency_p99_ms: float
    lag_p99_ms: float
    queue_depth: int | None = None
    idle: int | None = None
    busy: int | None = None
    offline: int | None = None


class Performance(msgspec.Struct, frozen=True):
    """`frame` has a row per Moment, `seconds` one per second in which something was received, `usage` one per
    node and second."""

    outcome: Outcome
    frame: pl.DataFrame
    seconds: pl.DataFrame
    usage: pl.DataFrame
    latencies: dict[str, Latencies]


class Conductor:
    """`tell` hears of each second."""

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        venue: Venue,
        tell: Callable[[Moment], None],
        drain_s: float,
        version: str,
    ) -> None:
        self._scenario = scenario
        self._folder = folder
        self._server = Server(venue.url, venue.token)
        self._make_players = partial(Players, scenario, folder, venue, secrets.token_hex(4))
        self._harm_actor = venue.harm_actor
        self._tell = tell
        self._drain_s = drain_s
        self._version = version
        self._moments: list[Moment] = []
        self._began_s = self._ended_s = self._answered = self._quiet_since = 0.0
        self._events = 0
        self._usage = UsageLog()
        self._reasons: list[str] = []  # why it is not all that the scenario says
        self._given_up = False
        self._faults: list[asyncio.Future[None]] = []

    async def perform(self, stop: asyncio.Event) -> Performance:
        """Until the end of the scenario, or `stop`. Raises Misuse or Unavailable before anything began."""
        started_at = rfc3339(time.time_ns())
        try:
            self._check()
            await self._server.check(bool(self._scenario.fleets or self._scenario.jobs))
            self._players = self._make_players()
            try:
                await self._bring_up(stop)
                await self._play(stop)
                await self._drain(stop)
                return await self._judge(started_at, stop.is_set())
            finally:
                await self._players.stop()
        finally:
            for fault in self._faults:
                fault.cancel()
            await asyncio.gather(*self._faults, return_exceptions=True)
            await self._server.close()

    # -- before

    def _check(self) -> None:
        """What a scenario may say and this kind of simulation does not do is refused, not left out."""
        scenario = self._scenario
        undone = [
            f"fleets.{name}.network behind gateways"
            for name, fleet in scenario.fleets.items()
            if fleet.network is not None and fleet.drive == "gateways"
        ]
        if scenario.virtual_only:
            what = ", ".join(scenario.virtual_only)
            raise Misuse(f"the scenario {scenario.name} wants what only fleetcast queue plays: {what}")
        if undone:
            what = ", ".join(undone)
            raise Misuse(f"the scenario {scenario.name} wants what load tests do not do yet: {what}")
        if scenario.jobs is not None and isinstance(scenario.jobs.arrivals, TraceArrivals):
            file = self._folder / scenario.jobs.arrivals.file
            read_trace(
                file, list(scenario.jobs.classes), scenario.lasts_s
            )  # what is wrong with it is told now
        if self._harm_actor is None and any(isinstance(fault, ActorFault) for fault in scenario.faults):
            raise Misuse("faults of actors need the fleet's own Ray: use --serve")

    async def _bring_up(self, stop: asyncio.Event) -> None:
        """Watchers first: they are to hear of every robot's first heartbeat."""
        players = self._players
        await players.agree_on_time()
        await players.start_watchers()
        await self._wait_until("watchers", lambda: all(each.there for each in players.watchers), stop)
        self._usage.before_robots()
        await players.start_fleets()
        await self._wait_until("robots", lambda: all(each.there for each in players.fleets), stop)

    async def _wait_until(self, who: str, there: Callable[[], bool], stop: asyncio.Event) -> None:
        until = time.monotonic() + CONNECT_S
        while not stop.is_set():
            await self._look("connecting")
            if there():
                return
            if time.monotonic() > until:
                self._reasons.append(f"not all {who} could connect within {CONNECT_S:.0f} s")
                return
            await self._pause(stop, EVERY_S / 4)

    async def _settle(self, stop: asyncio.Event) -> None:
        """Those who came at once are no part of the measurement: until the newest heartbeats are as fast as
        they were a second ago, give or take, or it takes too long."""
        until, before = time.monotonic() + CALM_S, 0.0
        while time.monotonic() < until and not stop.is_set():
            await self._players.measure()
            await self._pause(stop, EVERY_S)
            await self._look("settling")
            now = self._moments[-1].latency_p99_ms
            if now <= CALM_MS or before <= now <= before * CALM_FACTOR:
                return
            before = now

    # -- while it plays

    async def _play(self, stop: asyncio.Event) -> None:
        await self._settle(stop)
        await self._players.measure()
        self._first = self._last = await self._look("settling")
        self._usage.begin(sum(each.memory for each in self._players.fleet_reports()))
        self._began_s = self._answered = time.monotonic()
        await self._players.start_jobs(time.monotonic_ns() // 1_000)
        self._faults = [asyncio.ensure_future(self._harm(fault)) for fault in self._scenario.faults]
        while not stop.is_set() and not self._gone():
            left_s = self._began_s + self._scenario.lasts_s - time.monotonic()
            if left_s <= 0:
                break
            await self._pause(stop, min(EVERY_S, left_s))
            self._last = await self._look("running")
        self._ended_s = time.monotonic()
        self._usage.end()
        await self._players.hush()

    async def _harm(self, fault: Fault) -> None:
        """A run without what it was to be hard to do would say nothing."""
        await asyncio.sleep(max(0.0, self._began_s + fault.at - time.monotonic()))
        try:
            await self._make(fault)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            self._reasons.append(f"the fault {fault.kind} at {fault.at:g} s could not be made ({why})")

    async def _make(self, fault: Fault) -> None:
        match fault:
            case RobotFault(fleet=name, share=share, lasts=lasts_s):
                await self._players.lose_robots(name, share, lasts_s)
            case WatcherFault():
                await self._players.drop_watchers()
            case ActorFault() if self._harm_actor is not None:
                await self._harm_actor(fault)

    def _gone(self) -> bool:
        silent_s = time.monotonic() - self._answered
        if silent_s < GONE_S:
            return False
        self._given_up = True
        self._reasons.append(f"the server did not answer for {silent_s:.0f} s, and the run was ended")
        return True

    async def _drain(self, stop: asyncio.Event) -> None:
        """Until the jobs are done or it takes too long; then until nothing more is heard."""
        until = time.monotonic() + self._drain_s
        while self._players.under_way or not self._quiet:
            if time.monotonic() > until or stop.is_set() or self._given_up:
                break
            await self._pause(stop, EVERY_S / 2)
            await self._look("draining")
        await self._players.fall_silent()
        until = time.monotonic() + (SETTLE_S if stop.is_set() else QUIET_S)
        while not self._quiet and not self._given_up and time.monotonic() < until:
            await asyncio.sleep(min(EVERY_S, SETTLE_S) / 2)
            await self._look("draining")

    @property
    def _quiet(self) -> bool:
        return time.monotonic() - self._quiet_since >= SETTLE_S or not self._players.watchers

    @staticmethod
    async def _pause(stop: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            pass

    # -- each second

    async def _look(self, phase: str) -> Moment:
        counts, _, usage = await asyncio.gather(
            self._server.counts(), self._players.look(), self._players.usage()
        )
        now = time.monotonic()
        self._usage.note(now - self._began_s, usage)
        if counts is not None:
            self._answered = now
        if (events := self._players.events()) != self._events:
            self._events, self._quiet_since = events, now
        moment = self._moment(phase, now, counts or {})
        self._moments.append(moment)
        self._tell(moment)
        return moment

    def _moment(self, phase: str, now: float, counts: dict[str, int]) -> Moment:
        players = self._players
        fleets, watchers = players.fleet_reports(), players.watcher_reports()
        jobs = players.jobs.report if players.jobs else None
        latency = players.beat_latency(conflated=False)
        return Moment(
            phase=phase,
            at_s=now - self._began_s if self._began_s else 0.0,
            lasts_s=self._scenario.lasts_s,
            robots=self._scenario.robots,
            connected_robots=sum(each.connected for each in fleets),
            watchers=sum(each.count for each in self._scenario.watchers.values()),
            connected_watchers=sum(each.connected for each in watchers),
            beats_offered=sum(each.offered for each in fleets),
            beats_sent=sum(each.sent for each in fleets),
            events=sum(each.received for each in watchers),
            jobs_offered=jobs.offered if jobs else 0,
            jobs_accepted=jobs.accepted if jobs else 0,
            jobs_completed=players.book.completed,
            jobs_open=len(players.book.open),
            latency_p50_ms=latency.quantile_ms(50),
            latency_p99_ms=latency.quantile_ms(99),
            lag_p99_ms=players.lag().quantile_ms(99),
            queue_depth=counts.get("queue_depth"),
            idle=counts.get("idle_robots"),
            busy=counts.get("busy_robots"),
            offline=counts.get("offline_robots"),
        )

    # -- afterwards

    async def _judge(self, started_at: str, stopped: bool) -> Performance:
        scenario, players, moment = self._scenario, self._players, self._moments[-1]
        lasted_s = max(0.0, self._ended_s - self._began_s)
        sent = await players.sent()
        judged = await players.judged(sent)
        events = Tally()
        for each in judged:
            events.add(each.tally)
        jobs = await self._job_figures()
        named = players.latencies()
        summaries = {name: each.summary() for name, each in named.items() if len(each)}
        beats = self._rates(lasted_s)
        lag = players.lag().summary()
        dropped = jobs.dropped if jobs else 0
        reasons = outcome.invalid_because(lag["p99"], moment.beats_offered, moment.beats_sent, dropped)
        measured = outcome.metrics(summaries, jobs, events, beats, lasted_s)
        fleets, reports = players.fleet_reports(), players.watcher_reports()
        return Performance(
            Outcome(
                name=scenario.name,
                started_at=started_at,
                url=self._server.url,
                seed=scenario.seed,
                robots=scenario.robots,
                watchers=moment.watchers,
                lasted_s=round(lasted_s, 3),
                valid=not reasons,
                invalid_because=reasons,
                complete=not self._reasons and not stopped,
                incomplete_because=self._reasons + (["it was interrupted"] if stopped else []),
                sent=int(sent.numbers.sum()),
                received=moment.events,
                lost=events.lost,
                duplicated=events.duplicated,
                reordered=events.reordered,
                in_flight=events.in_flight,
                latency_ms=summaries.get("heartbeat_to_watcher", {}),
                latencies_ms=summaries,
                beats=beats,
                jobs=jobs,
                robot_reconnects=sum(each.reconnects for each in fleets),
                robots_stalled=sum(each.stalled for each in fleets),
                robots_refused=added([each.refused for each in fleets]),
                watchers_closed=added([each.closed for each in reports]),
                watchers_late=sum(each.late for each in judged),
                gaps=sum(each.gaps for each in reports),
                not_understood=sum(each.not_understood for each in reports),
                generator=Generator(lag, players.clock_error_ms),
                usage=self._usage.figures(scenario.robots),
                thresholds=outcome.verdicts(scenario, measured),
                version=self._version,
            ),
            pl.DataFrame(list(map(msgspec.structs.asdict, self._moments)), infer_schema_length=None),
            self._seconds(),
            self._usage.frame(),
            named,
        )

    def _rates(self, lasted_s: float) -> Rates:
        """While it played; the first beats are older than that."""
        offered = self._last.beats_offered - self._first.beats_offered
        sent = self._last.beats_sent - self._first.beats_sent
        per_s = 1 / lasted_s if lasted_s else 0.0
        return Rates(offered, sent, round(offered * per_s, 3), round(sent * per_s, 3))

    def _seconds(self) -> pl.DataFrame:
        begins = int(self._began_s)
        rows = []
        for second, parts in sorted(self._players.seconds.items()):
            late = latencies([part.latency for part in parts])
            received = sum(part.received for part in parts)
            quantiles = [late.quantile_ms(percent) if len(late) else None for percent in (50, 99, 100)]
            rows.append((second - begins, received, *quantiles))
        schema: dict[str, Any] = {"at_s": pl.Int64, "received": pl.Int64}
        schema |= dict.fromkeys(("p50_ms", "p99_ms", "max_ms"), pl.Float64)
        return pl.DataFrame(rows, schema, orient="row")

    async def _job_figures(self) -> JobFigures | None:
        """What no robot has said the end of, the server is asked about."""
        book, jobs = self._players.book, self._players.jobs
        if jobs is None or jobs.report is None:
            return None
        failed = lost = unfinished = 0
        for job_id in book.open:
            status = await self._server.job_status(job_id)
            failed += status in ("failed", "cancelled")
            lost += status == ""
            unfinished += status != "" and status not in TERMINAL
        report = jobs.report
        return JobFigures(
            offered=report.offered,
            accepted=report.accepted,
            completed=book.completed,
            failed=failed,
            unfinished=unfinished,
            lost=lost,
            duplicated=book.duplicated,
            dropped=report.dropped,
            refused=report.refused,
        )
