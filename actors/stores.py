"""Which store stands behind a room: `memory:`, `sqlite:FOLDER` or `postgresql://...`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from actors.database import Database, StoreHeld, StoreUnreachable
from actors.document_tables import DocumentTables, MemoryDocuments
from actors.job_tables import JobTables
from actors.memory_tables import MemoryJobTables
from actors.sqlite import SqliteDatabase
from fleet.errors import Misuse, Unavailable
from fleet.limits import Limits

log = logging.getLogger("fleetcast.stores")

Result = TypeVar("Result")
MEMORY = "memory:"
OPEN_S = 10.0


def job_tables(store: str, fleet: str, limits: Limits) -> JobTables | MemoryJobTables:
    return MemoryJobTables(limits) if store == MEMORY else JobTables(_database(store, "jobs"), fleet, limits)


def document_tables(store: str, fleet: str) -> DocumentTables | MemoryDocuments:
    return MemoryDocuments() if store == MEMORY else DocumentTables(_database(store, "registry"), fleet)


def pinned(store: str) -> bool:
    """Whether actors must stay on the machine where the store is."""
    return store.startswith("sqlite:")


def check(store: str, fleet: str, limits: Limits) -> None:
    """Opens it and closes it again. Raises StoreRefused, or Unavailable, with what is wrong."""
    jobs, documents = job_tables(store, fleet, limits), document_tables(store, fleet)
    try:
        jobs.open(0)
        jobs.close()
        documents.open()
        documents.close()
    except StoreUnreachable as error:
        raise Unavailable(str(error)) from None


def opened(opening: Callable[[], Result]) -> Result:
    """Tries for `OPEN_S` to reach the store; then this actor exits, to try again in its next life. So it does
    if another holds the store, perhaps a life before this one. Raises StoreRefused."""
    until = time.monotonic() + OPEN_S
    while True:
        try:
            return opening()
        except StoreHeld as error:
            log.critical("%s; this actor exits", error)
            os._exit(1)
        except StoreUnreachable as error:
            log.warning("%s; trying again", error)
            if time.monotonic() > until:
                os._exit(1)
            time.sleep(0.2)


def _database(store: str, component: str) -> Database:
    kind, _, place = store.partition(":")
    if kind == "sqlite":
        return SqliteDatabase(Path(place) / f"{component}.sqlite3")
    if kind in ("postgresql", "postgres"):
        from actors.postgres import PostgresDatabase

        return PostgresDatabase(store)
    raise Misuse(f"no store is called {kind}: use sqlite:FOLDER or postgresql://USER@HOST/DATABASE")
