"""Heartbeats from robot sockets to watchers: latency, loss, order, actor calls and memory.

    python benchmarks/heartbeats.py [--points 2000:2000,10000:5000] [--watchers 20] [--seconds 6] [--rounds 5]

A point is beats a second : robots. Robots send on a fixed schedule; every watcher looks each event up in it,
so a late sender counts as latency and nothing lost, doubled or out of order is missed. The control is the
same door, robots and watchers without a fleet: what counts is the difference. Rounds alternate; medians are
printed. Actor calls are those of the door and of the actors together; memory is what the door has for itself
(USS) for each robot that is connected and registered. All of it shares this machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop
from heartbeats_control import serve_control
from heartbeats_load import Point, Seen, Target, kib_per_robot, one_round
from processes import child, raise_file_limit, told
from served_fleet import served_fleet

MANY = 5_000  # robots, whose memory is measured
SLOW, FAST = 1_000, 10_000  # beats a second, whose calls are compared


# -- the fleet


@contextmanager
def fleetcast() -> Iterator[tuple[Target, int]]:
    """(where to connect, pid of the door)"""
    with served_fleet() as fleet:
        token = f"?token={fleet.token}"
        yield (
            Target(fleet.port, "/api/v1/ws/robot-status", "/api/v1/ws/robot/", token, fleet.calls),
            fleet.pid,
        )


# -- the table


Found = dict[tuple[Point, str], list[Seen]]


def middle(rounds: list[Seen], field: str) -> float:
    return float(statistics.median(getattr(seen, field) for seen in rounds))


def table(found: Found) -> None:
    print(
        "  beats/s  robots  server      p50 ms   p99 ms    worst    lost  doubled  reordered  actor calls/s"
    )
    for (point, name), rounds in found.items():
        print(f"  {point.rate:7,}  {point.robots:6,}  {name:9}  {cells(rounds)}")


def cells(rounds: list[Seen]) -> str:
    """Medians; of the 99th percentiles the worst as well; sums of what must not happen."""
    p50, p99, calls_per_s = (middle(rounds, field) for field in ("p50_ms", "p99_ms", "calls_per_s"))
    worst = max(seen.p99_ms for seen in rounds)
    lost, doubled, reordered = (
        sum(getattr(seen, field) for seen in rounds) for field in ("lost", "doubled", "reordered")
    )
    counted = f"{calls_per_s:13.0f}" if calls_per_s else ""
    return f"{p50:7.1f}  {p99:7.1f}  {worst:7.1f}  {lost:6}  {doubled:7}  {reordered:9}  {counted}"


def calls_ratio(found: Found) -> str:
    rates = {
        point.rate: middle(r, "calls_per_s") for (point, name), r in found.items() if name == "fleetcast"
    }
    if not {SLOW, FAST} <= set(rates):
        return ""
    ratio = rates[FAST] / rates[SLOW]
    return f"  actor calls at {FAST:,} beats/s / at {SLOW:,}: {ratio:.2f}; wanted: <= 1.2"


def points(text: str) -> list[Point]:
    return [Point(*map(int, part.split(":"))) for part in text.split(",")]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    default = points("2000:2000,10000:5000,1000:5000")
    parser.add_argument("--points", type=points, default=default, help="beats a second : robots, ...")
    parser.add_argument("--watchers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    given = options()
    raise_file_limit()
    found: Found = {(point, name): [] for point in given.points for name in ("fleetcast", "control")}
    with fleetcast() as (ours, pid), child(serve_control) as pipe:
        targets = {"fleetcast": ours, "control": Target(told(pipe), "/watch", "/ws/robot/")}
        robot_kib = uvloop.run(kib_per_robot(ours, pid, MANY))
        for number in range(1, given.rounds + 1):
            for (point, name), rounds in found.items():
                rounds.append(one_round(targets[name], point, given.watchers, given.seconds))
                print(f"round {number}, {point.rate} beats/s, {name}: {rounds[-1]}", file=sys.stderr)
    print(f"{given.watchers} watchers, {given.seconds:g} s, medians of {given.rounds} rounds")
    table(found)
    print(calls_ratio(found))
    print(f"  door memory for each of {MANY:,} registered robots: {robot_kib:.1f} KiB; wanted: <= 40")


if __name__ == "__main__":
    main()
