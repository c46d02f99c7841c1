"""The answer to a robot is lost on its way: what was done stays done, and it may ask again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from conftest import World

from network.proxy import Proxy, Weather

ROBOT = {"robot_id": "r-1", "max_concurrent_jobs": 2}


@asynccontextmanager
async def far_away(world: World) -> AsyncIterator[tuple[Proxy, httpx.AsyncClient]]:
    async with Proxy.to(world.port, Weather()) as proxy, world.http() as near:
        url = near.base_url.copy_with(port=proxy.port)
        async with httpx.AsyncClient(base_url=url, headers=near.headers) as far:
            yield proxy, far


async def lose_the_answer(proxy: Proxy, far: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    """The door has answered when the connection ends."""
    async with proxy.hole("down"):
        asking = asyncio.create_task(far.request(method, path, json=body))
        held = proxy.seen.held
        while proxy.seen.held == held:
            await asyncio.sleep(0)
        proxy.reset()
        with pytest.raises(httpx.TransportError):
            await asking


async def test_a_claim_whose_answer_was_lost_gets_the_same_job_and_nobody_else_does(world: World) -> None:
    async with far_away(world) as (proxy, far), world.http() as near:
        for robot in (ROBOT, {"robot_id": "r-2"}):
            await near.post("/robots/register", json=robot)
        job_id = (await near.post("/jobs", json={"name": "weld"})).json()["job_id"]
        claim = {"robot_id": "r-1", "request_id": "q"}
        await lose_the_answer(proxy, far, "POST", "/jobs/claim", claim)
        other = await near.post("/jobs/claim", json={"robot_id": "r-2", "request_id": "q"})
        assert other.json() == {"jobs": []}
        again = [(await far.post("/jobs/claim", json=claim)).json()["jobs"] for _ in range(2)]
        assert again[0] == again[1]
        [job] = again[0]
        assert (job["job_id"], job["attempt"]) == (job_id, 1)
        report = {"robot_id": "r-1", "token": job["token"]}
        assert (await far.post(f"/jobs/{job_id}/start", json=report)).status_code == 200


async def test_a_claim_that_waited_and_whose_robot_went_away_costs_nobody_the_job(world: World) -> None:
    """The connection ends before there is a job: it goes to who asks next."""
    async with far_away(world) as (proxy, far), world.http() as near:
        for robot in (ROBOT, {"robot_id": "r-2"}):
            await near.post("/robots/register", json=robot)
        claim = {"robot_id": "r-1", "request_id": "q", "wait_ms": 30_000}
        asking = asyncio.create_task(far.post("/jobs/claim", json=claim))
        while not world.server._server.server_state.tasks:
            await asyncio.sleep(0)
        proxy.reset()
        with pytest.raises(httpx.TransportError):
            await asking
        while world.server._server.server_state.tasks:
            await asyncio.sleep(0)
        await near.post("/jobs", json={"name": "weld"})
        other = {"robot_id": "r-2", "request_id": "q", "wait_ms": 5_000}
        assert len((await near.post("/jobs/claim", json=other)).json()["jobs"]) == 1


@pytest.mark.parametrize("report", ["start", "complete", "fail", "release"])
async def test_a_report_whose_answer_was_lost_may_be_said_again(world: World, report: str) -> None:
    async with far_away(world) as (proxy, far), world.http() as near:
        await near.post("/robots/register", json=ROBOT)
        job_id = (await near.post("/jobs", json={"name": "weld", "max_attempts": 1})).json()["job_id"]
        claim = {"robot_id": "r-1", "request_id": "q"}
        [job] = (await near.post("/jobs/claim", json=claim)).json()["jobs"]
        body: dict[str, Any] = {"robot_id": "r-1", "token": job["token"]}
        if report in ("complete", "fail"):
            await near.post(f"/jobs/{job_id}/start", json=body)
        body |= {"complete": {"result": {"by": "r-1"}}, "fail": {"error": "broken"}}.get(report, {})
        await lose_the_answer(proxy, far, "POST", f"/jobs/{job_id}/{report}", body)
        after = (await near.get(f"/jobs/{job_id}/history")).json()["events"]
        again = await far.post(f"/jobs/{job_id}/{report}", json=body)
        assert again.status_code == 200, again.text
        assert (await near.get(f"/jobs/{job_id}/history")).json()["events"] == after
