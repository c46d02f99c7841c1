"""A fleet of a scenario on sockets: brains that work, a wheel that beats, and what came of both."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import numpy as np

from fleet.messages import Ack, Complete, Error, Fail, FromRobot, Register, ServerMessage
from simulators.draws import stream
from simulators.load.beat_wheel import BeatWheel, Due
from simulators.load.beats import Floats, Ints
from simulators.load.clock import Clocked
from simulators.load.gateways import GatewaySwarm
from simulators.load.latency import Latencies
from simulators.load.reader import Reader
from simulators.load.swarm import NEVER_NS, Robot, Swarm
from simulators.load.usage import memory_of_this_process
from simulators.load.weather import Weather
from simulators.load.words import Words
from simulators.robot import LOST, RobotProfile
from simulators.scenario import Fleet

TICK_S = 0.005
CLAIM_WAIT_MS = 30_000
_encode = msgspec.json.Encoder().encode


def _digits(figures: Floats) -> list[bytes]:
    """Each in JSON. All at once: a float's shortest digits are what a heartbeat costs most."""
    return _encode(figures.tolist())[1:-1].split(b",")


class JobWord(msgspec.Struct, frozen=True):
    """What a robot heard and said of a job. `outcome` is "" while it works."""

    job_id: str
    token: int
    granted_us: int
    told_us: int = 0
    acked_us: int = 0
    outcome: str = ""


class FleetReport(msgspec.Struct, frozen=True):
    """Counts since the beginning. `connected`: and registered. `offered` beats were due, `sent` went to a
    connection; `lag` is how late they went, in an encoded histogram. `words` are those on jobs from the one
    that was asked for; `memory` is what its process holds more than before the robots were made, in bytes."""

    robots: int
    connected: int
    offered: int
    sent: int
    reconnects: int
    refused: dict[str, int]
    lag: bytes
    words: list[JobWord]
    stalled: int
    held: int
    reads: bytes
    memory: int


class Sent(msgspec.Struct, frozen=True):
    """What watchers are to have received: how many beats of each robot, and its last on each connection that
    ended."""

    numbers: Ints
    cuts: dict[int, list[int]]


class LoadFleet(Clocked):
    """The robots `first` to `first + count - 1` of a fleet."""

    def __init__(
        self,
        url: str,
        token: str,
        name: str,
        fleet: Fleet,
        works: bool,
        seed: int,
        first: int,
    ) -> None:
        super().__init__()
        self._memory_before = memory_of_this_process()
        profile = RobotProfile(
            speed=fleet.speed,
            failure_probability=fleet.failure_probability,
            max_concurrent_jobs=fleet.max_concurrent_jobs,
            capabilities=fleet.capabilities,
            environment=fleet.environment,
            claim_wait_ms=CLAIM_WAIT_MS,
            claims=works,
            beats=False,
        )
        if fleet.drive == "gateways":
            per_gateway = fleet.robots_per_gateway
            self._swarm: Swarm = GatewaySwarm(
                url, token, fleet.count, profile, name, seed, first, self, per_gateway
            )
        else:
            self._swarm = Swarm(url, token, fleet.count, profile, name, seed, first, self)
        for robot in self._swarm.robots if fleet.network is not None else ():
            assert fleet.network is not None
            rng = stream(seed, f"network {name}", first + robot.number)
            robot.weather = Weather(fleet.network, rng, time.monotonic_ns() // 1_000)
        self._reader: Reader | None = None
        if fleet.reads is not None:
            rng = stream(seed, f"reads {name}", first)
            self._reader = Reader(url, token, fleet.count / fleet.reads, self.clock, rng)
        self._wheel = BeatWheel(fleet, stream(seed, f"beats {name}", first))
        self._faults = stream(seed, f"faults {name}", first)
        self._registering: dict[int, str | int | None] = {}  # message ids by robot
        self._hushed = self._silent = False
        self._beating = np.zeros(fleet.count, dtype=bool)
        self._cuts: dict[int, list[int]] = {}
        self._lag = Latencies()
        self._offered = self._sent = 0
        self._refused: dict[str, int] = {}
        self._words: Words[JobWord] = Words()
        self._held: dict[tuple[str, int], JobWord] = {}  # by job and token
        self._ends: dict[tuple[int, str], tuple[str, int]] = {}  # by robot and message id
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._beat_on()))
        if self._reader is not None:
            self._tasks.append(loop.create_task(self._reader.run()))
        await self._swarm.start()

    async def measure(self) -> None:
        """From now on: what went before was to get everybody here."""
        self._lag = Latencies()
        if self._reader is not None:
            self._reader.latency = Latencies()

    async def hush(self) -> None:
        """What is under way may end: only robots with jobs in hand go on beating, to keep them."""
        self._hushed = True
        for robot in self._swarm.robots:
            if not robot.brain.busy:
                self._wheel.end(robot.number)

    async def fall_silent(self) -> None:
        """No more heartbeats at all."""
        self._silent = True
        self._wheel.end_all()

    async def lose(self, share: float, lasts_s: float | None) -> None:
        """This share of the robots, each chosen by the seed; for ever without `lasts_s`."""
        robots = self._swarm.robots
        chosen = self._faults.choice(len(robots), round(share * len(robots)), replace=False)
        until_ns = time.monotonic_ns() + int(lasts_s * 1e9) if lasts_s is not None else NEVER_NS
        for number in chosen.tolist():
            self._swarm.lose(robots[number], until_ns)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._swarm.stop()

    async def report(self, cursor: int) -> FleetReport:
        """What came before `cursor` is forgotten."""
        return FleetReport(
            len(self._swarm.robots),
            int(np.count_nonzero(self._beating)),
            self._offered,
            self._sent,
            self._swarm.reconnects,
            self._refusals(),
            self._lag.encoded(),
            self._words.since(cursor),
            self._swarm.stalled,
            self._swarm.held,
            self._reader.latency.encoded() if self._reader else Latencies().encoded(),
            memory_of_this_process() - self._memory_before,
        )

    def _refusals(self) -> dict[str, int]:
        reads = self._reader.refused if self._reader else {}
        return self._refused | {f"read: {why}": count for why, count in reads.items()}

    async def sent(self) -> Sent:
        return Sent(self._wheel.numbers.copy(), self._cuts)

    # -- heartbeats

    async def _beat_on(self) -> None:
        while True:
            now_us = self.clock.now_us()
            due = self._wheel.tick(now_us)
            if len(due):
                self._offered += len(due)
                self._lag.record(now_us - due.due_us)
                self._send(due, now_us)
            spent_s = (self.clock.now_us() - now_us) / 1e6
            await asyncio.sleep(max(0.0, TICK_S - spent_s))

    def _send(self, due: Due, now_us: int) -> None:
        robots, now_ns = self._swarm.robots, self.clock.ns_of(now_us)
        send, sent = self._swarm.send, 0
        for number, cpu, memory in zip(
            due.robots.tolist(), _digits(due.cpu_percent), _digits(due.memory_mb), strict=True
        ):
            robot = robots[number]
            if robot.brain.busy:
                frame = _encode(robot.brain.heartbeat(now_ns, float(cpu), float(memory)))
            else:
                frame = b'{"type":"heartbeat","cpu_percent":%b,"memory_mb":%b}' % (cpu, memory)
                if self._hushed:
                    self._wheel.end(number)
            sent += send(robot, frame)
        self._sent += sent
        self._swarm.flush()

    # -- what robots hear and say

    def on_heard(self, robot: Robot, message: ServerMessage) -> None:
        if type(message) is Ack:
            self._on_ack(robot, message)
        elif type(message) is Error:
            self._refused[message.code] = self._refused.get(message.code, 0) + 1
            key = (robot.number, str(message.id))
            if message.code in LOST and (ended := self._ends.pop(key, None)):
                self._end(ended, outcome=message.code)

    def _on_ack(self, robot: Robot, ack: Ack) -> None:
        if self._registering and self._registering.get(robot.number) == ack.id:
            # Not at its welcome: a beat may overtake the registration, and be refused.
            del self._registering[robot.number]
            self._beating[robot.number] = True
            if not self._hushed or robot.brain.busy:
                self._begin(robot)
        if ack.jobs and self._hushed and not self._wheel.runs(robot.number):
            self._begin(robot)
        for job in ack.jobs or ():
            self._held[job.job_id, job.token] = JobWord(job.job_id, job.token, self.clock.now_us())
            if self._reader is not None:
                self._reader.job_id = job.job_id
        if self._ends and (ended := self._ends.pop((robot.number, str(ack.id)), None)):
            self._end(ended, acked_us=self.clock.now_us())

    def _begin(self, robot: Robot) -> None:
        if not self._silent:
            self._wheel.begin(robot.number, self.clock.now_us())

    def on_said(self, robot: Robot, message: FromRobot) -> None:
        if isinstance(message, Register) and not self._beating[robot.number]:
            self._registering[robot.number] = message.id
        elif isinstance(message, Complete | Fail):
            key = (message.job_id, message.token)
            self._ends[robot.number, str(message.id)] = key
            word = self._held.get(key)
            if word is not None and not word.told_us:
                outcome = "completed" if isinstance(message, Complete) else "failed"
                told_us = self.clock.now_us()
                self._held[key] = msgspec.structs.replace(word, told_us=told_us, outcome=outcome)

    def _end(self, key: tuple[str, int], **known: Any) -> None:
        word = self._held.pop(key, None)
        if word is not None:
            self._words.add(msgspec.structs.replace(word, **known))

    def on_left(self, robot: Robot) -> None:
        self._registering.pop(robot.number, None)
        if self._beating[robot.number]:
            self._beating[robot.number] = False
            self._wheel.end(robot.number)
            self._cuts.setdefault(robot.number, []).append(int(self._wheel.numbers[robot.number]))
