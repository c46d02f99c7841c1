"""Somebody else fills the object store, and there is no disk to spill to.

`python -m memory.full_objects WAY`. What is small passes by the object store, and so does all that goes by
wire. What is large is refused by Ray and, said again, happens once.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from typing import Any

import httpx
import ray
import ray.exceptions
from conftest import FollowFeed, quick_limits, served
from lossy.faults import Way

from actors.supervisor import Supervisor
from fleet.events import LIVE_JOBS
from memory.own_ray import start_ray

NAMESPACE = "full"
STORE_BYTES = 80 * 1024 * 1024  # about the least that Ray allows
SIZES = (4 * 1024 * 1024, 256 * 1024)
LARGE = 20


def fill() -> list[Any]:
    """Until nothing more goes in, be it small. What is returned reads it all, so that none may be moved."""
    kept: list[Any] = []
    for size in SIZES:
        data = pickle.PickleBuffer(bytes(size))
        try:
            while len(kept) < 2 * STORE_BYTES // size:
                kept.append(ray.get(ray.put(data)))
        except ray.exceptions.OutOfDiskError:
            continue
        raise AssertionError("the object store takes everything")
    return kept


async def submit_many(http: httpx.AsyncClient) -> httpx.Response:
    """The reply has the payloads, and is too large for a message between actors."""
    body = [{"name": "large", "payload": {"x": "y" * 40_000}}] * LARGE
    return await http.post("/jobs", json=body, headers={"Idempotency-Key": "k"})


async def submit_one(http: httpx.AsyncClient) -> None:
    assert (await http.post("/jobs", json={"name": "small"})).status_code == 201


async def main(way: Way) -> None:
    supervisor = Supervisor(NAMESPACE, quick_limits())
    fleet = await asyncio.to_thread(supervisor.client)
    async with served(fleet) as world, world.http() as http:
        http.timeout = httpx.Timeout(30)
        told = await FollowFeed.begin(fleet, LIVE_JOBS)
        kept = await asyncio.to_thread(fill)
        await submit_one(http)
        first = await submit_many(http)
        expected = (503, "1") if way == "ray" else (201, None)
        assert (first.status_code, first.headers.get("Retry-After")) == expected, first.text[:500]
        await submit_one(http)
        kept.clear()
        while (answer := await submit_many(http)).status_code == 503:
            await asyncio.sleep(0.1)
        assert len(answer.json()["jobs"]) == LARGE
        jobs = (await http.get("/jobs", params={"limit": 500})).json()["jobs"]
        assert sorted(job["name"] for job in jobs) == ["large"] * LARGE + ["small"] * 2
        events = await told.take(LARGE + 2)
        assert {event["job_id"] for event in events} == {job["job_id"] for job in jobs}
    await fleet.close()
    supervisor.stop()
    print("done once")


if __name__ == "__main__":
    start_ray(NAMESPACE, object_store_memory=STORE_BYTES, local_fs_capacity_threshold=0.0001)
    asyncio.run(main(*sys.argv[1:]))  # type: ignore[arg-type]
    ray.shutdown()
