"""Procrastinate and PgQueuer on the PostgreSQL of the job benchmark: one no-op job, submitted in lists by
their own means, under the promise that fleetcast gives: a job's grant and its end are committed before the
place that it takes among those in work is another's.

Both with what their own guides advise for short jobs and many of them:

- Procrastinate: psycopg with a pool, LISTEN, as many async jobs at a time as there are places, spread over
  four processes: each fetches one job at a time, so that their fetches share commits; with more or fewer it
  does no more.
- PgQueuer: asyncpg, one connection a worker, the durable tables of its default, its settings of autovacuum,
  and `max_concurrent_tasks`, without which more jobs would be in work than there are places: it counts those
  whose end is not committed yet. It admits half of them as `batch_size`, and such batches are its fastest,
  which is why one process with all the places does more than several that share them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import psycopg
import uvloop
from jobs_load import ENOUGH, LIST
from processes import RoundFailed, child, heard, told

POLL_S = 0.05  # of a producer that has enough in the queue
PATIENCE_S = 120.0
POOL = 10


class Peer(msgspec.Struct, frozen=True):
    """`work` and `produce` are processes, of the first `workers`. What `done`, `once` and `left` ask for are
    counts; `done` is of the jobs that ended between two times of the database's clock."""

    name: str
    workers: int
    install: Callable[[str], None]
    work: Callable[[str, int, Connection], None]
    produce: Callable[[str, Connection], None]
    done: str
    once: str
    left: str


class Window(msgspec.Struct, frozen=True):
    """`places` jobs in work, of all workers together."""

    places: int
    warm_up_s: float
    seconds: float


def peer_round(peer: Peer, dsn: str, window: Window) -> float:
    """Jobs a second. Raises RoundFailed if one was lost or done twice."""
    peer.install(dsn)
    with ExitStack() as stack, psycopg.connect(dsn, autocommit=True) as connection:
        producer = stack.enter_context(child(peer.produce, dsn))
        told(producer)
        share = window.places // peer.workers
        for worker in [stack.enter_context(child(peer.work, dsn, share)) for _ in range(peer.workers)]:
            told(worker)
        time.sleep(window.warm_up_s)
        start = _one(connection, "SELECT clock_timestamp()")
        time.sleep(window.seconds)
        end = _one(connection, "SELECT clock_timestamp()")
        producer.send(None)
        _check(connection, peer, told(producer))
        return float(_one(connection, peer.done, start, end) / (end - start).total_seconds())


def _check(connection: psycopg.Connection[Any], peer: Peer, submitted: int) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while left := _one(connection, peer.left):
        if time.monotonic() > until_s:
            raise RoundFailed(f"{peer.name}: {left} of {submitted} jobs were not done")
        time.sleep(0.1)
    if (done := _one(connection, peer.once)) != submitted:
        raise RoundFailed(f"{peer.name}: {submitted} jobs, {done} of them done once")


def _one(connection: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    row = connection.execute(query, values or None).fetchone()
    assert row is not None
    return row[0]


async def _produce(dsn: str, queued: str, submit: Callable[[], Any], pipe: Connection) -> None:
    """Keeps the queue from running dry, and short. Says when it begins, and how many jobs it were."""
    asked, submitted = asyncio.create_task(heard(pipe)), 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        pipe.send(None)
        while not asked.done():
            cursor = await connection.execute(queued)
            [(count,)] = await cursor.fetchall()
            if count < ENOUGH:
                await submit()
                submitted += LIST
            else:
                await asyncio.wait([asked], timeout=POLL_S)
    pipe.send(submitted)


async def _until_hung_up(pipe: Connection) -> None:
    pipe.send(None)
    with suppress(EOFError):
        await heard(pipe)


# -- Procrastinate


def _procrastinate(dsn: str, connections: int) -> tuple[Any, Any]:
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=connections, max_size=connections))

    @app.task(name="noop")
    async def noop() -> None:
        pass

    return app, noop


def install_procrastinate(dsn: str) -> None:
    async def run() -> None:
        app, _ = _procrastinate(dsn, 1)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    asyncio.run(run())


def work_procrastinate(dsn: str, places: int, pipe: Connection) -> None:
    async def run() -> None:
        app, _ = _procrastinate(dsn, POOL)
        async with app.open_async():
            working = asyncio.create_task(
                app.run_worker_async(concurrency=places, install_signal_handlers=False)
            )
            await _until_hung_up(pipe)
            working.cancel()
            await asyncio.wait([working])

    uvloop.run(run())


def produce_procrastinate(dsn: str, pipe: Connection) -> None:
    async def run() -> None:
        app, noop = _procrastinate(dsn, 1)
        queued = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'"
        async with app.open_async():
            await _produce(dsn, queued, lambda: noop.batch_defer_async(*[{}] * LIST), pipe)

    uvloop.run(run())


PROCRASTINATE = Peer(
    "Procrastinate",
    4,
    install_procrastinate,
    work_procrastinate,
    produce_procrastinate,
    done="SELECT count(*) FROM procrastinate_events WHERE type = 'succeeded' AND at >= %s AND at < %s",
    once=(
        "SELECT count(*) FROM (SELECT FROM procrastinate_events WHERE type = 'succeeded' "
        "GROUP BY job_id HAVING count(*) = 1) AS done"
    ),
    left="SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'",
)


# -- PgQueuer


async def _pgqueuer(dsn: str) -> Any:
    import asyncpg
    from pgqueuer.db import AsyncpgDriver

    return AsyncpgDriver(await asyncpg.connect(dsn))


def install_pgqueuer(dsn: str) -> None:
    from pgqueuer.queries import Queries

    async def run() -> None:
        queries = Queries(await _pgqueuer(dsn))
        await queries.install()
        await queries.optimize_autovacuum()

    asyncio.run(run())


def work_pgqueuer(dsn: str, places: int, pipe: Connection) -> None:
    from pgqueuer import PgQueuer

    async def run() -> None:
        worker = PgQueuer(await _pgqueuer(dsn))

        @worker.entrypoint("noop")
        async def noop(job: Any) -> None:
            pass

        working = asyncio.create_task(worker.run(batch_size=places // 2, max_concurrent_tasks=places))
        await _until_hung_up(pipe)
        worker.shutdown.set()
        await asyncio.wait([working])

    uvloop.run(run())


def produce_pgqueuer(dsn: str, pipe: Connection) -> None:
    from pgqueuer.queries import Queries

    async def run() -> None:
        queries = Queries(await _pgqueuer(dsn))
        queued = "SELECT count(*) FROM pgqueuer WHERE status = 'queued'"
        jobs: tuple[Any, ...] = (["noop"] * LIST, [None] * LIST, [0] * LIST)
        await _produce(dsn, queued, lambda: queries.enqueue(*jobs), pipe)

    uvloop.run(run())


PGQUEUER = Peer(
    "PgQueuer",
    1,
    install_pgqueuer,
    work_pgqueuer,
    produce_pgqueuer,
    done="SELECT count(*) FROM pgqueuer_log WHERE status = 'successful' AND created >= %s AND created < %s",
    once=(
        "SELECT count(*) FROM (SELECT FROM pgqueuer_log WHERE status = 'successful' "
        "GROUP BY job_id HAVING count(*) = 1) AS done"
    ),
    left="SELECT count(*) FROM pgqueuer",
)
