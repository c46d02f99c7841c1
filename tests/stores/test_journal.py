"""Group commit: what waits shares one transaction, and nobody goes on before it is safe."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from stores.kept import FLEET, LIMITS, sqlite_tables

from actors.broadcaster import Broadcaster
from actors.job_store import JobStoreRoom
from actors.journal import Journal, JournalFailed, commit
from fleet.errors import Busy
from fleet.limits import Limits
from fleet.messages import Get, JobSpec, Submit


class SlowStore:
    """Its writes wait for `go`."""

    blocking = True

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.writing = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None

    def write(self, records: Sequence[Any]) -> None:
        self.writing.release()
        self.go.acquire()
        if self.error is not None:
            raise self.error
        self.batches.append(list(records))

    def close(self) -> None:
        pass


class Heard:
    """A journal on a slow store, and what came of it in its order."""

    def __init__(self) -> None:
        self.store = SlowStore()
        self.told: list[Any] = []
        self.journal = Journal(self.store, self._announce)

    def _announce(self, records: Sequence[Any]) -> None:
        self.told += [("announced", record) for record in records]

    async def append(self, record: Any) -> None:
        self.journal.append([record])
        await self.journal.committed()
        self.told.append(("answered", record))

    def task(self, record: Any) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self.append(record))

    async def writing(self) -> None:
        await asyncio.to_thread(self.store.writing.acquire)


@pytest.fixture
async def heard() -> AsyncIterator[Heard]:
    heard = Heard()
    yield heard
    for _ in range(10):
        heard.store.go.release()
    await heard.journal.close()


async def test_nobody_is_answered_before_the_commit(heard: Heard) -> None:
    task = heard.task(1)
    await heard.writing()
    assert (heard.told, task.done()) == ([], False)
    heard.store.go.release()
    await task
    assert heard.told == [("announced", 1), ("answered", 1)]


async def test_what_arrives_during_a_commit_shares_the_next(heard: Heard) -> None:
    tasks = [heard.task(1)]
    await heard.writing()
    tasks += [heard.task(number) for number in range(2, 7)]
    await asyncio.sleep(0)
    for _ in range(2):
        heard.store.go.release()
    await asyncio.gather(*tasks)
    assert heard.store.batches == [[1], [2, 3, 4, 5, 6]]


async def test_events_are_told_in_order_before_those_who_wait_go_on_in_theirs(heard: Heard) -> None:
    tasks = [heard.task(1)]
    await heard.writing()
    tasks += [heard.task(number) for number in (2, 3)]
    await asyncio.sleep(0)
    for _ in range(2):
        heard.store.go.release()
    await asyncio.gather(*tasks)
    assert heard.told == [
        *[("announced", 1), ("answered", 1)],
        *[("announced", 2), ("announced", 3), ("answered", 2), ("answered", 3)],
    ]


async def test_what_is_done_when_it_is_committed_is_done_in_order_whoever_comes_between(
    heard: Heard,
) -> None:
    """One who comes when nothing is left to wait for goes on before those who were waiting."""
    done, between = heard.told, asyncio.Event()
    heard.journal._announce = lambda records: between.set()

    async def act(records: list[int], name: str) -> None:
        await commit(heard.journal, records, lambda: done.append(("done", name)))
        done.append(("went on", name))

    async def come_between() -> None:
        await between.wait()
        await act([], "second")

    first, second = asyncio.create_task(act([1], "first")), asyncio.create_task(come_between())
    await heard.writing()
    heard.store.go.release()
    await asyncio.gather(first, second)
    assert [name for what, name in done if what == "done"] == ["first", "second"]
    assert [name for what, name in done if what == "went on"] == ["second", "first"]


async def test_who_changes_nothing_waits_for_what_was_decided_before(heard: Heard) -> None:
    first = heard.task(1)
    await heard.writing()
    heard.journal.append([])
    reader = asyncio.create_task(heard.journal.committed())
    await asyncio.sleep(0)
    assert not reader.done()
    heard.store.go.release()
    await asyncio.gather(first, reader)
    await heard.journal.committed()  # and nothing is left to wait for


async def test_who_stops_waiting_does_not_stop_the_commit(heard: Heard) -> None:
    gone, stays = heard.task(1), heard.task(2)
    await heard.writing()
    gone.cancel()
    heard.store.go.release()
    await stays
    assert heard.store.batches == [[1, 2]]


async def test_the_first_failure_is_the_last(heard: Heard) -> None:
    first = heard.task(1)
    await heard.writing()
    waiting = heard.task(2)
    await asyncio.sleep(0)
    heard.store.error = OSError("no space left")
    heard.store.go.release()
    for outcome in await asyncio.gather(first, waiting, return_exceptions=True):
        assert isinstance(outcome, JournalFailed)
    heard.store.error = None
    for attempt in (heard.append(3), heard.journal.committed(), heard.journal.run(lambda: None)):
        with pytest.raises(JournalFailed, match="no space left"):
            await attempt
    assert (heard.store.batches, heard.told) == ([], [])


async def test_a_failure_of_which_nobody_heard_is_remembered(heard: Heard) -> None:
    gone = heard.task(1)
    await heard.writing()
    gone.cancel()
    heard.store.error = OSError("no space left")
    heard.store.go.release()
    await heard.journal.close()
    with pytest.raises(JournalFailed):
        heard.journal.append([2])


async def test_what_was_appended_is_committed_before_the_end(heard: Heard) -> None:
    task = heard.task(1)
    await asyncio.sleep(0)
    heard.store.go.release()
    await heard.journal.close()
    await task
    assert heard.store.batches == [[1]]


# -- behind a room


async def test_a_hundred_commands_at_once_are_few_transactions(tmp_path: Path) -> None:
    room = JobStoreRoom(LIMITS, Broadcaster(LIMITS), Broadcaster(LIMITS), f"sqlite:{tmp_path}", FLEET)
    await asyncio.gather(*(room.execute([Submit([f"j{n}"], [JobSpec(name="weld")])]) for n in range(100)))
    [(commits,)] = room._tables.__dict__["_database"].read("SELECT commits FROM fleetcast_writers")
    await room.close()
    assert commits < 10
    tables = sqlite_tables(tmp_path)
    assert len(tables.open(0)[1].records) == 100
    tables.close()


async def test_a_store_that_does_not_keep_up_refuses_and_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(max_backlog=3)
    room = JobStoreRoom(limits, Broadcaster(limits), Broadcaster(limits), f"sqlite:{tmp_path}", FLEET)
    write, go = room._tables.write, threading.Event()

    def slow(records: Any) -> None:
        go.wait()
        write(records)

    monkeypatch.setattr(room._tables, "write", slow)
    names = [f"j{n}" for n in range(4)]
    submitting = asyncio.create_task(room.execute([Submit(names, [JobSpec(name="weld")] * 4)]))
    while room._journal.backlog < 4:
        await asyncio.sleep(0)
    with pytest.raises(Busy) as refused:
        await room.execute([Submit(["k"], [JobSpec(name="weld")])])
    assert refused.value.retry_after_s == 1.0
    go.set()
    await submitting
    [answer] = await room.execute([Get("k")])
    assert answer.kind == "NotFound"
    await room.close()
