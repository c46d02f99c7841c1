"""A robot is stopped, not killed, until its job is another's: when it goes on, it leaves that job alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from conftest import FollowFeed, World, fresh, quick_limits
from lossy.cluster import environment

from actors.local import LocalFleet
from fleet.events import LIVE_JOBS

pytestmark = pytest.mark.system


class RobotProcess:
    """`said`: all that it said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []

    @classmethod
    @asynccontextmanager
    async def of(cls, world: World, name: str) -> AsyncIterator[RobotProcess]:
        url = f"http://127.0.0.1:{world.port}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "crash.robot_process", url, name),
            env=environment(TOKEN=world.token("operator", 600.0)),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield cls(process)
        finally:
            process.kill()
            await process.communicate()

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    async def hear(self, kind: str) -> dict[str, Any]:
        """What it says until the next of this kind, which is returned."""
        assert self._process.stdout is not None
        while not self.said or self.said[-1]["type"] != kind:
            self.said.append(json.loads(await self._process.stdout.readline()))
        return self.said[-1]


async def beat(http: httpx.AsyncClient, robot_id: str, job: dict[str, Any]) -> None:
    body = {"status": "busy", "jobs": [{"job_id": job["job_id"], "token": job["token"]}]}
    while True:
        answer = await http.post(f"/robots/{robot_id}/heartbeat", json=body)
        assert answer.json()["cancel"] == []
        await asyncio.sleep(0.1)


async def test_a_robot_that_was_stopped_past_its_lease_does_not_touch_what_is_anothers() -> None:
    fleet = LocalFleet(quick_limits(min_lease_ms=1_500))
    async with fresh(fleet=fleet) as world, RobotProcess.of(world, "old") as old, world.http() as http:
        told = await FollowFeed.begin(fleet, LIVE_JOBS)
        job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        await old.hear("start")
        old.signal(signal.SIGSTOP)
        assert [event["status"] for event in await told.take(4)] == [
            "pending",
            "claimed",
            "running",
            "pending",
        ]
        await http.post("/robots/register", json={"robot_id": "new"})
        claim = {"robot_id": "new", "request_id": "q", "wait_ms": 5_000}
        [job] = (await http.post("/jobs/claim", json=claim)).json()["jobs"]
        assert (job["job_id"], job["attempt"]) == (job_id, 2)
        report = {"robot_id": "new", "token": job["token"]}
        await http.post(f"/jobs/{job_id}/start", json=report)
        beating = asyncio.create_task(beat(http, "new", job))
        old.said.clear()
        old.signal(signal.SIGCONT)
        assert (await old.hear("heartbeat"))["jobs"] == []
        await old.hear("claim")
        assert not [said for said in old.said if job_id in json.dumps(said)]
        assert not beating.done()
        beating.cancel()
        done = await http.post(f"/jobs/{job_id}/complete", json=report)
        assert (done.status_code, done.json()["robot_id"], done.json()["attempt"]) == (200, "new", 2)
        assert [event["status"] for event in await told.take(3)] == ["claimed", "running", "completed"]
    await fleet.close()
