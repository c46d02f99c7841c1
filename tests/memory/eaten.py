"""An actor takes so much memory that Ray kills it for that: `python -m memory.eaten FOLDER ACTOR`.

It is back as after any other death, with all that was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import ray
import ray.exceptions
from conftest import quick_limits, served

from actors.supervisor import Supervisor
from memory.own_ray import start_ray

NAMESPACE = "eaten"
GIB = 1024**3
HEADROOM = 3 * GIB  # of which the fleet itself needs half of one
BITE = 64 * 1024 * 1024


def threshold() -> float:
    """The part of this machine's memory at which Ray is to begin to kill."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {name: int(size) for name, size, *_ in lines}
    total = kib["MemTotal:"] * 1024
    return min(0.95, 1 - kib["MemAvailable:"] * 1024 / total + HEADROOM / total)


def eat(_: Any) -> None:
    """In the actor, which does nothing else meanwhile."""
    eaten = []
    while len(eaten) * BITE < 3 * HEADROOM:
        eaten.append(b"x" * BITE)
        time.sleep(0.02)
    time.sleep(10)


def killed_for_memory() -> bool:
    """By what Ray itself wrote down."""
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    return any(
        "memory" in line and "kill" in line.lower()
        for log in logs.glob("raylet*")
        for line in log.read_text(errors="replace").splitlines()
    )


async def process_of(actor: Any) -> int:
    return await actor.__ray_call__.remote(lambda room: os.getpid())


async def main(folder: str, name: str) -> None:
    supervisor = Supervisor(NAMESPACE, quick_limits(), store=f"sqlite:{folder}")
    fleet = await asyncio.to_thread(supervisor.client)
    async with served(fleet) as world, world.http() as http:
        http.timeout = httpx.Timeout(60)
        job = {"name": "before"}
        await http.post("/robots/register", json={"robot_id": "r"})
        job_id = (await http.post("/jobs", json=job)).json()["job_id"]
        actor = ray.get_actor(name, NAMESPACE)
        before = await process_of(actor)
        try:
            await actor.__ray_call__.remote(eat)
        except ray.exceptions.RayError as error:
            print(type(error).__name__)
        else:
            raise AssertionError("nobody minds how much memory it takes")
        assert killed_for_memory()
        while (answer := await http.get(f"/jobs/{job_id}")).status_code == 503:
            assert answer.headers["Retry-After"]
        assert answer.json()["status"] == "pending"
        [granted] = (await http.post("/jobs/claim", json={"robot_id": "r", "request_id": "q"})).json()["jobs"]
        assert granted["job_id"] == job_id
        assert await process_of(ray.get_actor(name, NAMESPACE)) != before
    await fleet.close()
    supervisor.stop()
    print("killed, and back")


if __name__ == "__main__":
    start_ray(NAMESPACE, memory_usage_threshold=threshold(), memory_monitor_refresh_ms=100)
    asyncio.run(main(*sys.argv[1:]))
    ray.shutdown()
