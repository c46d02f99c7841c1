"""That a job is over is heard, also of one that ended while nobody could hear it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from conftest import World

from simulators.load.endings import Endings


async def submitted(http: httpx.AsyncClient) -> Any:
    return (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]


async def test_an_end_is_told_whether_it_was_heard_or_missed(world: World) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    async with world.http() as http:
        missed, going_on = await submitted(http), await submitted(http)
        await http.post(f"/jobs/{missed}/cancel")
        ends = {missed, going_on, "job-of-another-server"}
        endings = Endings(
            f"http://127.0.0.1:{world.port}", world.token("operator"), told.put_nowait, lambda: ends
        )
        running = asyncio.ensure_future(endings.run(http))
        try:
            assert {await told.get(), await told.get()} == {missed, "job-of-another-server"}
            await http.post(f"/jobs/{going_on}/cancel")
            assert await told.get() == going_on
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
