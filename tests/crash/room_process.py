"""A process that hosts the job store as an actor would, and may be killed at a failpoint."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
from crash.failing_disk import FailingDisk
from crash.peer import Peer

from actors import failpoints, job_tables, stores
from actors.job_store import JobStoreRoom
from fleet.limits import SECOND, Limits

FLEET = "crashing"
NEWER = (
    "CREATE TABLE fleetcast_newer_{number} (id {{id}} PRIMARY KEY)",
    "CREATE INDEX fleetcast_newer_{number}_index ON fleetcast_newer_{number} (id)",
    "CREATE TABLE fleetcast_newest_{number} (id {{id}} PRIMARY KEY)",
)


class Life(msgspec.Struct, frozen=True):
    """One life of the room. `migrations`: how many more than this fleetcast's the schema has by now;
    `forget_before_ns`: jobs that finished and replies that were given before go, instead of by their age;
    `hasty`: answers before the commit, which is the bug that all of this is to find."""

    socket: str
    store: str
    limits: Limits
    failpoint: str = ""
    migrations: int = 0
    forget_before_ns: int = 0
    hasty: bool = False
    bad_sync: tuple[int, int] | None = None  # of which file, and after how many


class Told:
    """A broadcaster at the other end."""

    def __init__(self, peer: Peer, name: str) -> None:
        self._peer = peer
        self._name = name

    def __getattr__(self, method: str) -> Any:
        return lambda *args: self._peer.ask(self._name, method, *args)


def live(life: Life) -> None:
    """Runs until it is killed, or asked to close."""
    failpoints.arm(life.failpoint)
    stores.OPEN_S = 0.2  # who cannot open it may as well do so in the next life
    more = tuple(tuple(ddl.format(number=n) for ddl in NEWER) for n in range(life.migrations))
    job_tables.MIGRATIONS += more
    if life.bad_sync:
        FailingDisk().fail_after(*life.bad_sync)
    asyncio.run(_serve(life))


async def _serve(life: Life) -> None:
    reader, writer = await asyncio.open_unix_connection(life.socket)
    closed = asyncio.get_running_loop().create_future()

    async def serve(method: str, args: tuple[Any, ...]) -> Any:
        if method == "close":
            closed.set_result(None)
            return None
        return await getattr(room, method)(*args)

    peer = Peer(reader, writer, serve)
    place = Told(peer, "live-jobs"), Told(peer, "queue-metrics")
    room = JobStoreRoom(life.limits, *place, life.store, FLEET)
    _forget_by_command(room, life)
    if life.hasty:
        journal: Any = room._journal
        journal.committed = lambda: asyncio.sleep(0)
    listening = asyncio.create_task(peer.listen())
    await asyncio.wait([listening, closed], return_when=asyncio.FIRST_COMPLETED)
    if not closed.done():
        os._exit(3)  # nobody is there any more
    await room.close()


def _forget_by_command(room: JobStoreRoom, life: Life) -> None:
    tables: Any = room._tables
    clean, kept_ns = tables.clean, life.limits.retention_s * SECOND
    tables.clean = lambda wall_ns: clean(life.forget_before_ns + kept_ns)
