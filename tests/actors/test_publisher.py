"""How a room's events travel to their broadcaster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from conftest import quick_limits

from actors.publisher import Publisher
from fleet.feed import Batch, FeedHistory, Published

AN_HOUR_MS = 3_600_000


class Hears:
    """A broadcaster that keeps what it is told."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[list[bytes]] = asyncio.Queue()

    async def publish(self, batch: Batch) -> Published:
        self.batches.put_nowait(batch.events)
        return Published(batch.lineage.epoch, batch.first + len(batch.events))

    async def next(self) -> list[bytes]:
        return await asyncio.wait_for(self.batches.get(), 10)


@asynccontextmanager
async def publishing(hears: Hears, interval_ms: int) -> AsyncIterator[Publisher]:
    publisher = Publisher(hears, quick_limits(), FeedHistory("e"), interval_ms)
    yield publisher
    await publisher.close()


async def turns() -> None:
    """Of the loop: more than a call of a broadcaster in this process takes."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_happens_after_a_rest_goes_out_at_once() -> None:
    hears = Hears()
    async with publishing(hears, AN_HOUR_MS) as publisher:
        publisher.publish([b"1"])
        assert await hears.next() == [b"1"]


async def test_what_happens_within_an_interval_goes_out_together() -> None:
    hears = Hears()
    async with publishing(hears, 50) as publisher:
        assert await hears.next() == []  # where the feed stands
        for event in (b"1", b"2", b"3"):
            publisher.publish([event])
            await turns()
        assert await hears.next() == [b"1", b"2", b"3"]


async def test_without_an_interval_nothing_waits() -> None:
    hears = Hears()
    async with publishing(hears, 0) as publisher:
        assert await hears.next() == []
        for event in (b"1", b"2"):
            publisher.publish([event])
            await turns()
        assert [await hears.next(), await hears.next()] == [[b"1"], [b"2"]]
