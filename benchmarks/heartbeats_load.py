"""The load of the heartbeat benchmark: robots that keep a schedule, watchers that know it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import uvloop
from counted_fleet import calls
from processes import child, heard, own_kib, told
from raw_websocket import KeepingSocket, RawSocket, masked

LEAD_S = 1.0
TAIL_S = 1.5
HANDSHAKES = 100  # at once
WARM_UP = 200  # robots, who pay what is paid once
BEAT = b'{"type":"heartbeat","status":"idle","cpu_percent":12.5,"memory_mb":%r}'


class Point(msgspec.Struct, frozen=True):
    rate: int
    robots: int


class Plan(msgspec.Struct, frozen=True):
    """Beat k is due at start + k / rate; it is the (k // robots)-th of robot k % robots."""

    point: Point
    beats: int
    start_s: float

    def due_s(self, robot: int, number: int) -> float:
        return self.start_s + (number * self.point.robots + robot) / self.point.rate


class Seen(msgspec.Struct, frozen=True):
    """Over all watchers of one round."""

    p50_ms: float
    p99_ms: float
    lost: int
    doubled: int
    reordered: int
    calls_per_s: float = 0.0


class Target(msgspec.Struct, frozen=True):
    """Where to connect. `calls` is the folder of a fleet that counts them."""

    port: int
    watch: str
    robot: str
    token: str = ""
    calls: Path | None = None

    def calls_now(self) -> int:
        return calls(self.calls) if self.calls else 0


# -- watchers


def watch(target: Target, count: int, pipe: Connection) -> None:
    """A process of its own: what it measures must not wait behind the senders."""
    with suppress(EOFError, KeyboardInterrupt):
        uvloop.run(watch_and_judge(target, count, pipe))


async def watch_and_judge(target: Target, count: int, pipe: Connection) -> None:
    path = target.watch + target.token
    sockets = [await KeepingSocket.connect(target.port, path) for _ in range(count)]
    pipe.send(None)
    plan: Plan = await heard(pipe)
    await asyncio.sleep(plan.start_s + plan.beats / plan.point.rate + TAIL_S - time.monotonic())
    pipe.send(judge(sockets, plan))


def judge(sockets: list[KeepingSocket], plan: Plan) -> Seen:
    latencies_ms: list[float] = []
    lost = doubled = reordered = 0
    for peer in sockets:
        seen: set[tuple[int, int]] = set()
        last = [-1] * plan.point.robots
        for robot, number, received_s in peer.heartbeats():
            doubled += (robot, number) in seen
            reordered += number < last[robot]
            seen.add((robot, number))
            last[robot] = number
            latencies_ms.append((received_s - plan.due_s(robot, number)) * 1_000)
        lost += plan.beats - len(seen)
    latencies_ms.sort()
    p50, p99 = (latencies_ms[int(len(latencies_ms) * share)] for share in (0.5, 0.99))
    return Seen(p50, p99, lost, doubled, reordered)


# -- robots


async def connect_robots(target: Target, first: int, count: int) -> list[RawSocket]:
    """Connected, registered and welcomed."""
    robots: list[RawSocket] = []
    for start in range(first, first + count, HANDSHAKES):
        names = range(start, min(start + HANDSHAKES, first + count))
        paths = [f"{target.robot}bench-{number}{target.token}" for number in names]
        robots += await asyncio.gather(*(RawSocket.connect(target.port, path) for path in paths))
    for robot in robots:
        robot.transport.write(masked(b'{"type":"register"}'))
    async with asyncio.timeout(60):
        while any(robot.received == 0 for robot in robots):
            await asyncio.sleep(0.05)
    return robots


async def beat(target: Target, point: Point, seconds: float, pipe: Connection) -> Seen:
    robots = await connect_robots(target, 0, point.robots)
    plan = Plan(point, int(point.rate * seconds), time.monotonic() + LEAD_S)
    pipe.send(plan)
    await asyncio.sleep(plan.start_s - time.monotonic())
    before, started_s = target.calls_now(), time.monotonic()
    await send_beats(robots, plan)
    calls_per_s = (target.calls_now() - before) / (time.monotonic() - started_s)
    seen: Seen = await heard(pipe)
    for robot in robots:
        robot.transport.abort()
    return msgspec.structs.replace(seen, calls_per_s=calls_per_s)


async def send_beats(robots: list[RawSocket], plan: Plan) -> None:
    sent = 0
    while sent < plan.beats:
        due = min(plan.beats, int((time.monotonic() - plan.start_s) * plan.point.rate) + 1)
        for k in range(sent, due):
            number, robot = divmod(k, len(robots))
            robots[robot].transport.write(masked(BEAT % (1_024 + number / 1_024)))
        sent = max(sent, due)
        await asyncio.sleep(0.001)


def one_round(target: Target, point: Point, watchers: int, seconds: float) -> Seen:
    with child(watch, target, watchers) as pipe:
        told(pipe)
        return uvloop.run(beat(target, point, seconds, pipe))


async def kib_per_robot(target: Target, pid: int, count: int) -> float:
    first = await connect_robots(target, 0, WARM_UP)
    before_kib = own_kib(pid)
    others = await connect_robots(target, WARM_UP, count)
    used_kib = own_kib(pid) - before_kib
    for robot in first + others:
        robot.transport.abort()
    return used_kib / count
