"""Jobs from submission to completion, durable: a second's worth, beside Procrastinate and PgQueuer.

    python benchmarks/jobs.py [--quick] [--rows sqlite,procrastinate] [--robots 100] [--slots 1] [--seconds 8]

The same job goes through each: submitted in lists of 500 by a producer that keeps up to 2,000 in the queue,
granted, done (it is nothing), its end reported. As many jobs are in work at a time as there are robots with
their slots: here robots with sockets of their own, there places in worker processes. Every step is committed,
synced to the disk, before the next: here grant, start and completion, each acknowledged to its robot; there
fetch and end (see jobs_peers.py for their settings). A round is a fresh server with an empty store for each
row; rounds alternate and medians count. A round in which a job is lost or done twice fails.

Then the same fleet at half of what it has just done: how long from when a job was due to be submitted until a
robot had it. And the job store's actor alone, with batches as they formed under load: transitions a second.
All of it shares this machine: compare the rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import msgspec
from counted_fleet import counted
from jobs_load import Order, Seen, Server, run_load
from jobs_peers import PGQUEUER, PROCRASTINATE, Window, peer_round
from jobs_store import Drive, drive_store
from postgres import Postgres, postgres_server
from processes import child, raise_file_limit, told
from served_fleet import served_fleet

SQLITE, POSTGRESQL = "sqlite", "postgresql"
OURS = (SQLITE, POSTGRESQL)
PEERS = {"procrastinate": PROCRASTINATE, "pgqueuer": PGQUEUER}
ROWS = (*OURS, *PEERS)
WANTED = {"procrastinate": 5.0, "pgqueuer": 2.0}  # times as many
WANTED_PER_S = 3_000.0
WANTED_TRANSITIONS_PER_S = 20_000.0
LANES = 2  # calls to the store under way: what robots say, and all else
PATIENCE_S = 180.0


class Plan(msgspec.Struct, frozen=True):
    rows: tuple[str, ...]
    robots: int
    slots: int
    warm_up_s: float
    seconds: float
    rounds: int

    @property
    def places(self) -> int:
        return self.robots * self.slots

    def order(self, per_s: float = 0.0) -> Order:
        return Order(self.robots, self.slots, self.warm_up_s, self.seconds, per_s)


class Round(msgspec.Struct):
    """Of one row. What a peer does not tell is None."""

    per_s: float
    half_load: Seen | None = None
    batch: float = 0.0
    transitions_per_s: float = 0.0


Found = dict[str, list[Round]]


# -- rounds


@contextmanager
def fresh_store(row: str, postgres: Postgres) -> Iterator[str]:
    """As the actor is told of it."""
    if row == POSTGRESQL:
        yield postgres.new_database(socket=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:{folder}"


def our_round(row: str, plan: Plan, postgres: Postgres) -> Round:
    store = postgres.new_database(socket=True) if row == POSTGRESQL else ""
    with served_fleet(store) as fleet, child(run_load, Server(fleet.port, fleet.token)) as load:
        before = counted(fleet.calls)
        most = obey(load, plan.order())
        batches = counted(fleet.calls) - before
        half = obey(load, plan.order(most.per_s / 2))
    batch = batches.commands / batches.batches
    with fresh_store(row, postgres) as place, child(drive_store, place, drive(batch, plan)) as pipe:
        return Round(most.per_s, half, batch, told(pipe, PATIENCE_S))


def obey(load: Connection, order: Order) -> Seen:
    load.send(order)
    seen: Seen = told(load, PATIENCE_S + order.seconds)
    return seen


def drive(batch: float, plan: Plan) -> Drive:
    return Drive(max(1, round(batch)), LANES, plan.seconds / 2)


def their_round(row: str, plan: Plan, postgres: Postgres) -> Round:
    window = Window(plan.places, plan.warm_up_s, plan.seconds)
    return Round(peer_round(PEERS[row], postgres.new_database(socket=True), window))


def run_rounds(plan: Plan) -> Found:
    found: Found = {row: [] for row in plan.rows}
    with postgres_server() as postgres:
        for number in range(1, plan.rounds + 1):
            for row, rounds in found.items():
                rounds.append((our_round if row in OURS else their_round)(row, plan, postgres))
                print(f"round {number}, {row}: {rounds[-1]}", file=sys.stderr)
    return found


# -- the table


def middle(values: list[float]) -> float:
    return statistics.median(values)


def per_s(rounds: list[Round]) -> float:
    return middle([each.per_s for each in rounds])


def verdict(value: float, wanted: float) -> str:
    return "PASS" if value >= wanted else "short"


def table(plan: Plan, found: Found) -> None:
    print(f"{plan.places} jobs in work at a time, {plan.seconds:g} s, medians of {plan.rounds} rounds")
    columns = "".join(f"{f'of {peer.name}':>20}" for peer in PEERS.values())
    print(f"  {'lives of jobs a second':49}{columns}")
    for row, rounds in found.items():
        spread = f"({min(each.per_s for each in rounds):.0f}-{max(each.per_s for each in rounds):.0f})"
        beside = "".join(f"{ratio(found, row, peer):>20}" for peer in PEERS)
        print(f"  {title(row):24}{per_s(rounds):8,.0f}   {spread:14}{beside}")
    for row in OURS:
        if row in found:
            judge(row, found)


def title(row: str) -> str:
    return f"fleetcast, {row}" if row in OURS else PEERS[row].name


def ratio(found: Found, row: str, peer: str) -> str:
    return f"x {per_s(found[row]) / per_s(found[peer]):.2f}" if peer in found and row != peer else ""


def judge(row: str, found: Found) -> None:
    rounds = found[row]
    print(f"fleetcast, {row}:")
    line("lives of jobs a second", per_s(rounds), WANTED_PER_S)
    for peer, times in WANTED.items():
        if peer in found:
            line(f"times those of {PEERS[peer].name}", per_s(rounds) / per_s(found[peer]), times, 2)
    transitions = middle([each.transitions_per_s for each in rounds])
    batch = middle([each.batch for each in rounds])
    line(f"transitions a second in its actor, {batch:.0f} a call", transitions, WANTED_TRANSITIONS_PER_S)
    halves = [each.half_load for each in rounds if each.half_load]
    p50, p99 = (middle([getattr(half, name) for half in halves]) for name in ("p50_ms", "p99_ms"))
    kept = middle([half.per_s for half in halves])
    print(f"  {f'ms until a robot has it, at {kept:,.0f} a second':58}p50 {p50:.1f}, p99 {p99:.1f}")


def line(what: str, value: float, wanted: float, digits: int = 0) -> None:
    print(f"  {what:58}{value:8,.{digits}f}   wanted {wanted:,.0f}: {verdict(value, wanted)}")


def rows(text: str) -> tuple[str, ...]:
    named = tuple(text.split(","))
    if unknown := set(named) - set(ROWS):
        raise argparse.ArgumentTypeError(f"no row is called {', '.join(sorted(unknown))}")
    return named


def plan_given() -> Plan:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rows", type=rows, default=ROWS, help=", ".join(ROWS))
    parser.add_argument("--robots", type=int, default=100)
    parser.add_argument("--slots", type=int, default=1, help="jobs that a robot works at at a time")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.quick:
        given.seconds, given.rounds = 3.0, 1
    return Plan(given.rows, given.robots, given.slots, 2.0, given.seconds, given.rounds)


def main() -> None:
    plan = plan_given()
    raise_file_limit()
    table(plan, run_rounds(plan))


if __name__ == "__main__":
    main()
