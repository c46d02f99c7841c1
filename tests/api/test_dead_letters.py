"""What became of jobs, over HTTP and from the command line: their history, why they wait, and those that
failed for good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from conftest import World, quick_limits, served, until
from typer.testing import CliRunner, Result

import fleetcast
from actors.local import LocalFleet

ROBOT = {"robot_id": "r-1", "environment": "hall", "max_concurrent_jobs": 9}


def refused(answer: httpx.Response, status: int, code: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert code in ("", answer.json()["code"])


@asynccontextmanager
async def world_with(**limits: int) -> AsyncIterator[World]:
    fleet = LocalFleet(quick_limits(**limits), "0.0.0-test")
    async with served(fleet) as world:
        yield world
    await fleet.close()


async def dead(http: httpx.AsyncClient, *errors: str, name: str = "weld", **job: Any) -> list[str]:
    """Ids of jobs that failed for good, each with its error."""
    await http.post("/robots/register", json=ROBOT)
    jobs = (await http.post("/jobs", json=[{"name": name, **job}] * len(errors))).json()["jobs"]
    for job_id, error in zip([job["job_id"] for job in jobs], errors, strict=True):
        claim = {"robot_id": "r-1", "request_id": job_id}
        [granted] = (await http.post("/jobs/claim", json=claim)).json()["jobs"]
        report = {"robot_id": "r-1", "token": granted["token"], "error": error, "retryable": False}
        assert granted["job_id"] == job_id
        await http.post(f"/jobs/{job_id}/fail", json=report)
    return [job["job_id"] for job in jobs]


async def listed(http: httpx.AsyncClient, **query: Any) -> list[str]:
    answer = await http.get("/jobs/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    return [job["job_id"] for job in answer.json()["jobs"]]


async def test_a_history_tells_what_happened_and_what_the_robot_said(world: World) -> None:
    async with world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        [job] = (await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": "q"})).json()["jobs"]
        report = {"robot_id": "r-1", "token": job["token"]}
        await http.post(f"/jobs/{job_id}/start", json=report)
        said = {"progress": 40, "current_node": "door", "message": "half way"}
        await http.put(f"/jobs/{job_id}/progress", json=report | said)
        async with world.open("robot/r-1") as robot:
            socket_said = {"type": "progress", "id": 1, "job_id": job_id, "token": job["token"]} | said
            await robot.send(json.dumps(socket_said | {"progress": 80}))
            while json.loads(await robot.recv())["type"] != "ack":
                pass
        await http.post(f"/jobs/{job_id}/fail", json=report | {"error": "jam", "retryable": False})
        history = (await http.get(f"/jobs/{job_id}/history")).json()
        part = (await http.get(f"/jobs/{job_id}/history", params={"limit": 4, "cursor": 2})).json()
        assert (await http.get(f"/jobs/{job_id}")).json()["progress"] == 80
    events = history["events"]
    assert [(e["event"], e["status"]) for e in events] == [
        ("submit", "pending"),
        ("claim", "claimed"),
        ("start", "running"),
        ("progress", "running"),
        ("progress", "running"),
        ("fail", "failed"),
    ]
    assert history["next_cursor"] is None
    assert [e.get("progress") for e in events] == [None, None, None, 40, 80, None]
    assert {(e["current_node"], e["message"]) for e in events[3:5]} == {("door", "half way")}
    assert events[-1]["error"] == "jam"
    assert part == {"events": events[2:], "next_cursor": None}


async def test_a_long_history_comes_in_pages(world: World) -> None:
    async with world.http() as http:
        [job_id] = await dead(http, "jam")
        found, cursor = [], None
        while True:
            query = {"limit": 1} | ({"cursor": cursor} if cursor else {})
            page = (await http.get(f"/jobs/{job_id}/history", params=query)).json()
            found += [event["event"] for event in page["events"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert found == ["submit", "claim", "fail"]
        beyond = await http.get(f"/jobs/{job_id}/history", params={"cursor": 9})
        assert beyond.json() == {"events": [], "next_cursor": None}


@pytest.mark.parametrize("word", ["history", "explain"])
async def test_a_job_that_is_not_there_has_no_story(world: World, word: str) -> None:
    async with world.http() as http:
        refused(await http.get(f"/jobs/nobody/{word}"), 404, "not_found")
    async with world.http("viewer") as http:
        refused(await http.get(f"/jobs/nobody/{word}"), 404, "not_found")


async def test_why_a_job_waits_is_told(world: World) -> None:
    async with world.http() as http:
        job = {"name": "weld", "environment": "hall", "required_capabilities": ["arm"]}
        job_id = (await http.post("/jobs", json=job)).json()["job_id"]
        nobody = (await http.get(f"/jobs/{job_id}/explain")).json()
        await http.post("/robots/register", json=ROBOT)
        unfit = (await http.get(f"/jobs/{job_id}/explain")).json()
        await http.put("/robots/r-1", json=ROBOT | {"capabilities": ["arm"]})
        await http.put("/robots/r-1/status", json={"status": "maintenance", "note": "new gripper"})
        paused = (await http.get(f"/jobs/{job_id}/explain")).json()
        await http.put("/robots/r-1/status", json={"status": "idle"})
        idle = (await http.get(f"/jobs/{job_id}/explain")).json()
        await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": "q"})
        claimed = (await http.get(f"/jobs/{job_id}/explain")).json()
    assert [why["reasons"][0]["code"] for why in (nobody, unfit, paused, idle)] == [
        "no_robot",
        "capability_nobody_has",
        "nobody_ready",
        "not_asking",
    ]
    assert unfit["summary"] == "no robot of the environment hall has arm"
    assert [(r["robot_id"], r["state"], r["note"]) for r in paused["robots"]] == [
        ("r-1", "maintenance", "new gripper")
    ]
    assert (claimed["status"], claimed["reasons"]) == ("claimed", [])


async def test_a_job_that_nobody_can_do_waits_says_why_and_expires() -> None:
    async with world_with() as world, world.http() as http, world.open("live-jobs") as watcher:
        await http.post("/robots/register", json=ROBOT)
        job = {"name": "weld", "required_capabilities": ["wings"], "pending_timeout_s": 0.5}
        job_id = (await http.post("/jobs", json=job)).json()["job_id"]
        why = (await http.get(f"/jobs/{job_id}/explain")).json()
        assert [reason["code"] for reason in why["reasons"]] == ["capability_nobody_has", "expires"]
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "pending"
        await until(watcher, lambda event: event == {**event, "job_id": job_id, "status": "failed"})
        why = (await http.get(f"/jobs/{job_id}/explain")).json()
        assert why["summary"].endswith(": expired")
        assert await listed(http) == [job_id]


async def test_a_job_that_is_done_or_being_done_is_not_retried(world: World) -> None:
    async with world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        [job] = (await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": "q"})).json()["jobs"]
        report = {"robot_id": "r-1", "token": job["token"]}
        for word in ("start", "complete"):
            await http.post(f"/jobs/{job_id}/{word}", json=report)
            refused(await http.post(f"/jobs/{job_id}/retry"), 409, "wrong_state")
        assert len((await http.get("/jobs")).json()["jobs"]) == 1
        assert (await http.get(f"/jobs/{job_id}")).json()["retried_by"] is None


async def test_dead_letters_are_found_by_what_they_have_in_common(world: World) -> None:
    async with world.http() as http:
        jam, fire = await dead(http, "arm jam 7", "fire")
        [cut] = await dead(http, "arm jam 8", name="cut", environment="hall")
        assert await listed(http) == [cut, fire, jam]
        assert await listed(http, error="jam") == [cut, jam]
        assert await listed(http, name="weld", error="jam", robot_id="r-1") == [jam]
        assert await listed(http, environment="hall") == [cut]
        page = (await http.get("/jobs/dead-letters", params={"limit": 2})).json()
        assert [job["job_id"] for job in page["jobs"]] == [cut, fire]
        assert await listed(http, cursor=page["next_cursor"]) == [jam]
        for text in ("' OR 1=1 --", "%", "_", "*", "$.error", "\x00", ""):
            assert await listed(http, name=text) == []
        assert await listed(http, error="%") == []
        refused(await http.get("/jobs/dead-letters", params={"cursor": "x"}), 400, "bad_cursor")
        refused(await http.get("/jobs/dead-letters", params={"limit": 501}), 422, "bad_parameter")


async def test_a_redrive_makes_a_new_job_of_each_once(world: World) -> None:
    async with world.http() as http:
        names = await dead(http, "jam", "fire", "jam", payload={"x": 1})
        body = {"filter": {"error": "jam"}}
        done = (await http.post("/jobs/redrive", json=body)).json()
        assert done == {"redriven": 2, "remaining": 0, "next_cursor": None}
        assert await listed(http) == [names[1]]
        assert (await http.post("/jobs/redrive", json=body)).json()["redriven"] == 0
        for job_id in (names[0], names[2]):
            old = (await http.get(f"/jobs/{job_id}")).json()
            new = (await http.get(f"/jobs/{old['retried_by']}")).json()
            assert (new["retry_of"], new["payload"], new["status"]) == (job_id, {"x": 1}, "pending")
            history = (await http.get(f"/jobs/{job_id}/history")).json()["events"]
            assert (history[-1]["event"], history[-1]["retried_by"]) == ("retried", new["job_id"])


async def test_a_redrive_goes_on_where_it_was_and_is_safe_to_repeat(world: World) -> None:
    async with world.http() as http:
        names = await dead(http, *["jam"] * 5)
        body: dict[str, Any] = {"filter": {}, "limit": 2}
        once, again = [
            await http.post("/jobs/redrive", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
        ]
        assert once.json() == {"redriven": 2, "remaining": 3, "next_cursor": once.json()["next_cursor"]}
        assert again.content == once.content
        assert [a.headers.get("idempotency-replayed") for a in (once, again)] == [None, "true"]
        assert await listed(http) == names[:1:-1]
        other = await http.post("/jobs/redrive", json=body | {"limit": 3}, headers={"Idempotency-Key": "k"})
        refused(other, 422, "idempotency_key_reused")
        rest = []
        while (cursor := once.json()["next_cursor"]) is not None:
            once = await http.post("/jobs/redrive", json=body | {"cursor": cursor})
            rest.append((once.json()["redriven"], once.json()["remaining"]))
        assert rest == [(2, 1), (1, 0)]


async def test_a_redrive_of_jobs_by_name_takes_those_that_are_dead(world: World) -> None:
    async with world.http() as http:
        names = await dead(http, "jam", "jam")
        wanted = {"filter": {"job_ids": [names[0], "nobody"]}}
        assert (await http.post("/jobs/redrive", json=wanted)).json()["redriven"] == 1
        assert await listed(http) == [names[1]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": None},
        {"filter": {"nome": "x"}},
        {"filter": {}, "limit": 0},
        {"filter": {}, "limit": 1_001},
        {"filter": {"job_ids": ["x"] * 1_001}},
        [],
    ],
)
async def test_a_redrive_that_does_not_say_what_it_means_is_refused(world: World, body: Any) -> None:
    async with world.http() as http:
        [job_id] = await dead(http, "jam")
        refused(await http.post("/jobs/redrive", json=body), 422)
        refused(await http.post("/jobs/redrive", json={"filter": {}, "cursor": "x"}), 400, "bad_cursor")
        assert await listed(http) == [job_id]


async def test_only_operators_redrive(world: World) -> None:
    async with world.http("viewer") as http:
        refused(await http.post("/jobs/redrive", json={"filter": {}}), 403, "role")
        assert (await http.get("/jobs/dead-letters")).status_code == 200


# -- from the command line


async def told(world: World, *arguments: str) -> Result:
    environment = {"FLEETCAST_URL": f"http://127.0.0.1:{world.port}", "FLEETCAST_TOKEN": world.token()}
    return await asyncio.to_thread(CliRunner().invoke, fleetcast.app, arguments, env=environment)


async def test_the_command_line_shows_dead_letters_a_line_each(world: World) -> None:
    async with world.http() as http:
        names = await dead(http, "jam", "fire", "jam")
    shown = await told(world, "dead-letters", "--error", "jam", "--limit", "1")
    assert [json.loads(line)["job_id"] for line in shown.stdout.splitlines()] == [names[2]]
    shown = await told(world, "dead-letters")
    assert [json.loads(line)["job_id"] for line in shown.stdout.splitlines()] == names[::-1]


async def test_the_command_line_redrives_in_batches_and_waits_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The queue has room for two at a time, and is emptied while the command waits."""
    async with world_with(max_pending=2) as world, world.http() as http:
        for _ in range(5):
            await dead(http, "jam")
        loop = asyncio.get_running_loop()

        async def empty() -> None:
            for job in (await http.get("/jobs", params={"status": "pending"})).json()["jobs"]:
                await http.post(f"/jobs/{job['job_id']}/cancel")

        def wait(seconds: float) -> None:
            asyncio.run_coroutine_threadsafe(empty(), loop).result(20)

        monkeypatch.setattr(fleetcast.time, "sleep", wait)
        done = await told(world, "redrive", "--all")
        assert (done.exit_code, done.stdout) == (0, "5 submitted again\n")
        assert "2 submitted again, 3 to look at" in done.stderr
        assert "queue is at its limit" in done.stderr
        assert await listed(http) == []
        again = (await http.get("/jobs", params={"limit": 500})).json()["jobs"]
        assert len({job["retry_of"] for job in again if job["retry_of"]}) == 5
        assert len(again) == 10


async def test_the_command_line_wants_to_be_told_what_to_redrive(world: World) -> None:
    ended = await told(world, "redrive")
    assert "--all" in str(ended.exception)


async def test_a_call_without_an_answer_is_made_again_under_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first is lost; what it did is not done again."""
    async with world.http() as http:
        await dead(http, "jam", "jam")
    ask, lost = fleetcast._ask, [1]

    def ask_and_lose(*arguments: Any, **named: Any) -> Any:
        answer = ask(*arguments, **named)
        if lost:
            lost.pop()
            raise fleetcast.Unavailable("no server answers")
        return answer

    monkeypatch.setattr(fleetcast, "_ask", ask_and_lose)
    monkeypatch.setattr(fleetcast.time, "sleep", lambda seconds: None)
    done = await told(world, "redrive", "--error", "jam")
    assert done.stdout == "2 submitted again\n"
    async with world.http() as http:
        assert len((await http.get("/jobs")).json()["jobs"]) == 4
