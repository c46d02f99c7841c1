"""A fleet whose job store is a process that is killed, over and over; and the judgement on what it did."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from checkers import lifecycle, outcomes
from checkers.history import AnyRecord, Evidence, Recorder, RecordFile, ops_of
from checkers.job_model import Bounds
from checkers.violation import Violation
from crash import stored
from crash.clients import Client, Producer, Robot
from crash.peer import Gone, Peer
from crash.room_process import NEWER, Life, live

from actors import failpoints
from actors.broadcaster import Broadcaster
from actors.client import FleetClient, Rooms
from actors.registry import RegistryRoom
from fleet.limits import MS, Limits

LIMITS = Limits(
    heartbeat_interval_ms=100,
    min_lease_ms=400,
    cancel_grace_ms=200,
    backoff_base_ms=20,
    backoff_max_ms=200,
    long_poll_ms=200,
    tick_ms=5,
    clean_interval_ms=40,
    compact_interval_ms=30,
    clock_note_ms=100,
    retention_s=600,
    idempotency_s=600,
    reply_s=600,
    max_pending=300,
    feed_events=100_000,
    max_finished=100,
)
DOORS, ROBOTS, PRODUCERS = 3, 24, 60
KEPT_CYCLES = 8  # how long a finished job stays, so that nobody asks for it after it is gone
DIE_IN_S = 60.0
PASSES = dict.fromkeys(failpoints.ALL, 10) | {failpoints.IN_SNAPSHOT: 3, failpoints.IN_MIGRATION: len(NEWER)}


class JobStoreProcess:
    """Looks like the room. A call that was not answered is made again once there is a process."""

    def __init__(self, serve: Any) -> None:
        self._serve = serve
        self._peer: Peer | None = None
        self._born = asyncio.Event()
        self.answers = 0

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args: self.ask(method, *args)

    async def ask(self, method: str, *args: Any) -> Any:
        while True:
            await self._born.wait()
            assert self._peer is not None
            try:
                return await self._peer.ask(method, *args)
            except Gone:
                self._born.clear()

    async def adopt(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peer = peer = Peer(reader, writer, self._serve)
        self._born.set()
        await peer.listen()


class World:
    def __init__(
        self, folder: Path, store: str, seed: int, limits: Limits = LIMITS, hasty: bool = False
    ) -> None:
        self.store = store
        self.limits = limits
        self._hasty = hasty
        self.rng = Random(seed)
        self.records: list[AnyRecord] = []
        self.found = stored.Stored()
        self.hits: Counter[str] = Counter()
        self.fewest_in_flight = 10**9
        self.told: list[tuple[str, str]] = []  # what a watcher of live-jobs saw
        self.clients: list[Client] = []
        self._folder = folder
        self._socket = str(folder / "socket")
        self._migrations = 0
        self._began: list[int] = []  # wall time of each cycle
        self._feeds = {"live-jobs": Broadcaster(limits), "queue-metrics": Broadcaster(limits)}
        self.job_store: Any = JobStoreProcess(self._tell)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["crash.room_process", "actors.postgres"])
        self._process: Any = None

    async def _tell(self, feed: str, args: tuple[Any, ...]) -> Any:
        method, *rest = args
        return await getattr(self._feeds[feed], method)(*rest)

    # -- the room's lives

    def begin(
        self, failpoint: str = "", migrations: int = 0, bad_sync: tuple[int, int] | None = None
    ) -> None:
        """A new process, which takes over as soon as it has the store."""
        self._migrations += migrations
        self._began.append(time.time_ns())
        forget = self._began[-KEPT_CYCLES] if len(self._began) > KEPT_CYCLES else 0
        place = self._socket, self.store, self.limits
        life = Life(*place, failpoint, self._migrations, forget, self._hasty, bad_sync)
        self._process = self._context.Process(target=live, args=(life,), daemon=True)
        self._process.start()

    async def died(self) -> int:
        """Waits for the end of the process; its exit code. Negative: the signal."""
        loop, process = asyncio.get_running_loop(), self._process
        dead = loop.create_future()
        loop.add_reader(process.sentinel, lambda: dead.done() or dead.set_result(None))
        await asyncio.wait([dead], timeout=DIE_IN_S)
        loop.remove_reader(process.sentinel)
        assert dead.done(), f"the job store lives on; {self.in_flight()} calls are in flight"
        process.join()
        return int(process.exitcode)

    def in_flight(self) -> int:
        return sum(client.in_flight for client in self.clients)

    async def answered(self, count: int) -> None:
        """Waits until clients have written down so many calls and answers more."""
        until = len(self.records) + count
        while len(self.records) < until:
            await asyncio.sleep(0.005)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    async def cycle(self, name: str) -> None:
        """A life that ends at this failpoint, and a look at what it left."""
        passes = self.rng.randint(1, PASSES[name])
        self.begin(f"{name}:{passes}", migrations=int(name == failpoints.IN_MIGRATION))
        assert await self.died() == -signal.SIGKILL, f"{name} was not hit"
        self.fewest_in_flight = min(self.fewest_in_flight, self.in_flight())
        self.hits[name] += 1
        self.look()

    def look(self) -> None:
        """At what is stored, while nobody writes."""
        self.found.add(stored.read(self.store))

    # -- the others

    @asynccontextmanager
    async def inhabited(self, robots: int = ROBOTS, producers: int = PRODUCERS) -> AsyncIterator[FleetClient]:
        """With doors, robots, producers and a watcher; yields one of the doors."""
        server = await asyncio.start_unix_server(self.job_store.adopt, self._socket)
        registry = RegistryRoom(self.limits, Broadcaster(self.limits), Broadcaster(self.limits))
        rooms = Rooms(self.job_store, registry, self._feeds)
        doors = [FleetClient(rooms, self.limits) for _ in range(DOORS)]
        recorder = Recorder(self.records.append)
        for number in range(robots + producers):
            kind, name = (Robot, f"r{number}") if number < robots else (Producer, f"p{number}")
            self.clients.append(kind(name, doors[number % DOORS], recorder, Random(self.rng.random())))
        running = {client: asyncio.create_task(client.run()) for client in self.clients}
        self._producing = [task for client, task in running.items() if isinstance(client, Producer)]
        tasks = [*running.values(), asyncio.create_task(self._watch())]
        try:
            yield doors[0]
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()  # raises: nobody ends by itself
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
            for door in doors:
                await door.close()
            await registry.close()
            server.close()

    async def _watch(self) -> None:
        """Follows live-jobs from its first event on."""
        epoch, offset = "", 0
        while True:
            page = await self._feeds["live-jobs"].read(epoch, offset, 1_000, 1_000)
            if not epoch:
                epoch = page.epoch
                continue
            assert page.recovered, "the watcher has a gap"
            self.told += map(stored.message_of, page.events)
            epoch, offset = page.epoch, page.offset

    # -- the end

    async def calm_down(self) -> None:
        """Nobody asks for more, robots do well, and every job comes to its end."""
        for task in self._producing:
            task.cancel()
        for client in self.clients:
            client.calm = True
        if not self._process.is_alive():
            self.begin()
        while True:
            counts = await self.job_store.counts()
            if not counts.pending + counts.running:
                break
        await self.job_store.close()
        assert await self.died() == 0
        self.look()
        until_s = time.monotonic() + DIE_IN_S
        while len(self.told) < len(self.found.events) and time.monotonic() < until_s:
            await asyncio.sleep(0.01)

    def assert_no_harm(self) -> None:
        """A watcher heard of every change, once and in order, and of nothing that was not committed; and the
        checkers find nothing against what clients were told."""
        assert self.told == [self.found.events[number] for number in range(len(self.found.events))]
        violations = self.violations()
        if violations:
            record = RecordFile(self._folder / "records.jsonl")
            for each in self.records:
                record(each)
        assert not violations, "\n".join(map(str, violations[:20]))

    def violations(self) -> list[Violation]:
        ops = sorted(ops_of(self.records), key=lambda op: op.invoked_ns)
        evidence = Evidence(ops, self.found.jobs, drained=True)
        lease_ns, grace_ns = self.limits.lease_ms * MS, self.limits.cancel_grace_ms * MS
        bounds = Bounds(lease_ns=lease_ns, cancel_grace_ns=grace_ns, timeouts=True)
        return [*outcomes.check(evidence), *lifecycle.check(evidence, bounds)]
