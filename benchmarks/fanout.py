"""Fan-out: server CPU per delivered message and memory per idle watcher, fleetcast beside others.

    python benchmarks/fanout.py [--quick] [--rows fleetcast,picows] [--watchers 200,2000] [--events 1,10,50]

Every server runs in a process of its own and the watchers in another, which counts messages: a round with
one too few or too many fails. Flushes of 1, 10 or 50 events are sent every 20 ms (every 100 ms beyond 500
watchers); what the server costs with the same sockets connected and nothing to send is taken off. A round
is a fresh server for each row, and rounds alternate. Memory is what the process has for itself (USS), between
the first tenth of the watchers, which pay what is paid once, and all of them.

fleetcast is the whole door over an in-process fleet: publish, feed, pump, hub, socket. The connection manager
is FastAPI's on uvicorn's defaults: json.dumps and send_text with a timeout of 1 s for each client.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from multiprocessing.connection import Connection

import msgspec
from fanout_pace import EVENTS, Load
from fanout_peers import PATH, PEERS, serve
from fanout_watchers import Connect, Expect, watch
from processes import RoundFailed, child, cpu_s, own_kib, told

IDLE_S = 1.0
FIRST = 0.1  # of the watchers
MEMORY_FROM = 1_000  # watchers: with fewer, single allocations of the server's heap show


class Round(msgspec.Struct):
    """Of one server; microseconds per delivered message, by events a flush."""

    cpu_us: dict[int, float]
    idle_kib: float


class Server(msgspec.Struct, frozen=True):
    """A server with its watchers, seen from outside."""

    name: str
    pid: int
    pipe: Connection
    watchers: Connection

    def connect(self, port: int, watchers: int) -> None:
        self.watchers.send(Connect(port, PATH, watchers))
        told(self.watchers)

    def cpu_s_of(self, load: Load) -> tuple[float, float]:
        """(CPU seconds, seconds) until all was delivered."""
        self.watchers.send(Expect(load.flushes * load.events))
        told(self.watchers)
        before_s, started_s = cpu_s(self.pid), time.monotonic()
        self.pipe.send(load)
        told(self.watchers)
        told(self.pipe)
        return cpu_s(self.pid) - before_s, time.monotonic() - started_s


class Plan(msgspec.Struct, frozen=True):
    watchers: int
    events: list[int]
    flushes: int

    @property
    def pace_s(self) -> float:
        return 0.02 if self.watchers <= 500 else 0.1

    def load(self, row: str, events: int) -> Load:
        """As many flushes in as much time as at 20 ms, if the row can do that."""
        wanted = round(self.flushes * 0.02 / self.pace_s)
        most = PEERS[row].most // (self.watchers * events)
        return Load(max(1, min(wanted, most)), events, self.pace_s)

    def idle(self) -> Load:
        return Load(round(IDLE_S / self.pace_s), 0, self.pace_s)


def one_round(row: str, plan: Plan) -> Round:
    with child(serve, row) as pipe, child(watch, PEERS[row].wire) as watchers:
        port, pid = told(pipe)
        server = Server(row, pid, pipe, watchers)
        first = max(1, round(plan.watchers * FIRST))
        server.connect(port, first)
        before_kib = own_kib(pid)
        server.connect(port, plan.watchers)
        idle_kib = (own_kib(pid) - before_kib) / max(1, plan.watchers - first)
        used_s, took_s = server.cpu_s_of(plan.idle())
        loads = {events: plan.load(row, events) for events in plan.events}
        return Round({e: cpu_us(server, plan, load, used_s / took_s) for e, load in loads.items()}, idle_kib)


def cpu_us(server: Server, plan: Plan, load: Load, idle: float) -> float:
    used_s, took_s = server.cpu_s_of(load)
    messages = load.flushes * load.events * plan.watchers
    return max(0.0, used_s - idle * took_s) / messages * 1e6


class Found:
    """Rounds of each row at one number of watchers."""

    def __init__(self, plan: Plan, rows: list[str]) -> None:
        self.plan = plan
        self.rounds: dict[str, list[Round]] = {row: [] for row in rows}
        self.failures: dict[str, list[str]] = defaultdict(list)

    def run(self, number: int) -> None:
        for row in self.rounds:
            started_s = time.monotonic()
            try:
                self.rounds[row].append(one_round(row, self.plan))
                said = f"{time.monotonic() - started_s:.0f} s"
            except RoundFailed as failure:
                self.failures[row].append(str(failure))
                said = f"FAILED: {failure}"
            print(f"{self.plan.watchers} watchers, round {number}, {row}: {said}", file=sys.stderr)

    def cpu_us(self, row: str, events: int) -> list[float]:
        return [found.cpu_us[events] for found in self.rounds[row]]

    def idle_kib(self, row: str) -> list[float]:
        return [found.idle_kib for found in self.rounds[row]]


# -- the tables


def cell(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    low, middle, high = (f"{f(values):.{digits}f}" for f in (min, statistics.median, max))
    return f"{middle} ({low}-{high})"


def table(found: Found) -> None:
    plan, events = found.plan, found.plan.events
    print(f"\n{plan.watchers:,} watchers, a flush every {plan.pace_s * 1_000:.0f} ms")
    memory = plan.watchers >= MEMORY_FROM
    line("server CPU per message, us", [*columns(plan), *(["KiB per idle watcher"] if memory else [])])
    for row in found.rounds:
        cells = [cell(found.cpu_us(row, count), 2 if count == 1 else 3) for count in events]
        line(row, cells + ([cell(found.idle_kib(row), 1)] if memory else []))
    line("as a multiple of fleetcast's", columns(plan))
    for row in found.rounds:
        line(row, [multiple(found, row, count) for count in events])


def columns(plan: Plan) -> list[str]:
    return [f"{count} a flush" for count in plan.events]


def line(name: str, cells: list[str]) -> None:
    print(f"  {name:36}" + "".join(f"{text:>25}" for text in cells))


def multiple(found: Found, row: str, events: int, of: str = "fleetcast") -> str:
    """Of the medians."""
    ours, other = (found.cpu_us(name, events) if name in found.rounds else [] for name in (of, row))
    return f"{statistics.median(other) / statistics.median(ours):.2f}" if ours and other else "-"


def notes(found: Found) -> None:
    plan = found.plan
    if 1 in plan.events and found.rounds.get("fleetcast") and found.rounds.get("picows"):
        print(
            f"  fleetcast / picows at 1 a flush: {multiple(found, 'fleetcast', 1, 'picows')}; wanted: <= 1.3"
        )
    if 10 in plan.events:
        print("  wanted at 10 a flush: connection manager >= 40, every other row > 1")
    wanted = plan.load("fleetcast", 1).flushes
    for row in found.rounds:
        few = {count: plan.load(row, count).flushes for count in plan.events}
        fewer = [f"{flushes} at {count}" for count, flushes in few.items() if flushes < wanted]
        if fewer:
            print(f"  {row} cannot keep the pace; instead of {wanted} flushes it sent {', '.join(fewer)}")
    for row, failures in found.failures.items():
        print(f"  {row}: {len(failures)} rounds FAILED, the last because {failures[-1]}")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def rows(text: str) -> list[str]:
    """A row may be named by its beginning."""
    named = [[row for row in PEERS if row.startswith(part.strip())] for part in text.split(",")]
    if not all(named):
        raise argparse.ArgumentTypeError(f"choose from: {', '.join(PEERS)}")
    return list(dict.fromkeys(row for several in named for row in several))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=rows, default=list(PEERS), help=f"of: {', '.join(PEERS)}")
    parser.add_argument("--watchers", type=numbers, default=[200, 2_000])
    parser.add_argument("--events", type=numbers, default=[1, 10, 50], help="events a flush")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--flushes", type=int, default=100, help="at 20 ms; fewer, as long, at 100 ms")
    parser.add_argument("--quick", action="store_true", help="a look in a minute: one short round")
    return parser.parse_args()


def main() -> None:
    given = options()
    if given.quick:
        given.rounds, given.flushes, given.watchers = 1, 25, given.watchers[:1]
    found = [Found(Plan(watchers, given.events, given.flushes), given.rows) for watchers in given.watchers]
    for number in range(1, given.rounds + 1):
        for several in found:
            several.run(number)
    size = len(EVENTS[0].data)
    print(f"Medians (lowest-highest) of {given.rounds} rounds; messages of {size} bytes.")
    for several in found:
        table(several)
        notes(several)
    sys.exit(any(several.failures for several in found))


if __name__ == "__main__":
    main()
