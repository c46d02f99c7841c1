"""A job's life and a robot's life over HTTP, seen on the streams; and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from conftest import World, fresh, hear, quick_limits, until

from actors.local import LocalFleet

ROBOT = {"robot_id": "r-1", "capabilities": ["weld"], "max_concurrent_jobs": 2}

SOME_BAD = [{"name": "a"}, {"name": ""}, {"nome": "b"}, {"name": "d"}, {"name": "e", "not_before": "soon"}]


def refused(answer: httpx.Response, status: int, code: str = "") -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert code in ("", body["code"])
    return body


async def held(http: httpx.AsyncClient, request_id: str = "q") -> tuple[str, dict[str, Any]]:
    """A job claimed by r-1: (its id, the body of a report about it)."""
    await http.post("/robots/register", json=ROBOT)
    job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
    claim = {"robot_id": "r-1", "request_id": request_id}
    jobs = (await http.post("/jobs/claim", json=claim)).json()["jobs"]
    assert [job["job_id"] for job in jobs] == [job_id]
    return job_id, {"robot_id": "r-1", "token": jobs[0]["token"]}


async def test_a_jobs_life_over_http_is_seen_in_order(world: World) -> None:
    async with world.open("live-jobs") as stream, world.http() as http:
        job_id, report = await held(http)
        started = await http.post(f"/jobs/{job_id}/start", json=report)
        moved = await http.put(f"/jobs/{job_id}/progress", json=report | {"progress": 40})
        done = await http.post(f"/jobs/{job_id}/complete", json=report | {"result": [1, 2]})
        again = await http.post(f"/jobs/{job_id}/complete", json=report | {"result": [1, 2]})
        seen = [(await hear(stream))["status"] for _ in range(4)]
    assert [r.status_code for r in (started, moved, done, again)] == [200] * 4
    assert (moved.json()["progress"], done.json()["result"]) == (40, [1, 2])
    assert again.json() == done.json()
    assert seen == ["pending", "claimed", "running", "completed"]


async def test_a_robots_life_over_http_is_seen_in_order(world: World) -> None:
    async with world.open("robot-status") as stream, world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        body = {"status": "busy", "cpu_percent": 1.25, "memory_mb": 64.5}
        beaten = await http.post("/robots/r-1/heartbeat", json=body)
        await http.put("/robots/r-1/status", json={"status": "maintenance"})
        claim = {"robot_id": "r-1", "request_id": "a"}
        refused(await http.post("/jobs/claim", json=claim), 409, "maintenance")
        await http.put("/robots/r-1/status", json={"status": "idle", "drain": True})
        refused(await http.post("/jobs/claim", json=claim), 409, "draining")
        seen = [(await hear(stream))["status"] for _ in range(5)]
        view = (await http.get("/robots/r-1")).json()
        deleted = await http.delete("/robots/r-1")
        refused(await http.get("/robots/r-1"), 404)
    assert beaten.json()["ok"] is True
    assert seen == ["idle", "busy", "maintenance", "busy", "offline"]
    assert view["metrics"] == {"cpu_percent": 1.25, "memory_mb": 64.5}
    assert deleted.json() == {"deleted": True, "robot_id": "r-1"}


@pytest.mark.parametrize(
    ("report", "status"),
    [
        ({"robot_id": "r-1", "token": 99}, 409),
        ({"robot_id": "r-2", "token": 1}, 403),
        ({"robot_id": "r-1"}, 422),
        ({"token": 1}, 422),
        ({"robot_id": "r-1", "token": "1"}, 422),
    ],
)
async def test_a_stale_foreign_or_missing_token_changes_nothing(
    world: World, report: dict[str, Any], status: int
) -> None:
    async with world.http() as http:
        job_id, _ = await held(http)
        before = (await http.get(f"/jobs/{job_id}")).json()
        for word in ("start", "complete", "fail", "release", "cancelled"):
            refused(await http.post(f"/jobs/{job_id}/{word}", json=report), status)
        assert (await http.get(f"/jobs/{job_id}")).json() == before


@pytest.mark.parametrize("token", [None, "1", 1.5, True, {}])
async def test_a_heartbeat_that_names_a_job_without_a_token_is_refused_whole(
    world: World, token: Any
) -> None:
    async with world.http() as http:
        job_id, _ = await held(http)
        named = {"job_id": job_id} | ({} if token is None else {"token": token})
        beat = {"status": "error", "jobs": [named]}
        refused(await http.post("/robots/r-1/heartbeat", json=beat), 422)
        refused(await http.post("/robots/heartbeats", json=[beat | {"robot_id": "r-1"}]), 422)
        robot = (await http.get("/robots/r-1")).json()
        assert (robot["status"], robot["last_heartbeat"]) == ("idle", None)


async def test_a_wrong_state_is_refused_naming_state_and_event(world: World) -> None:
    async with world.http() as http:
        job_id, report = await held(http)
        body = refused(await http.post(f"/jobs/{job_id}/complete", json=report), 409, "wrong_state")
        assert "claimed" in body["detail"]
        assert "complete" in body["detail"]
        refused(await http.post(f"/jobs/{job_id}/retry"), 409, "wrong_state")
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "claimed"


async def test_cancel_reaches_the_robot_and_the_job_ends_when_it_obeys(world: World) -> None:
    async with world.open("robot/r-1") as robot, world.http() as http:
        await robot.send('{"type":"register","id":1}')
        await robot.send('{"type":"claim","id":2,"request_id":"q","wait_ms":9000}')
        job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        grant = (await until(robot, lambda message: message.get("jobs")))["jobs"][0]
        cancel = (await http.post(f"/jobs/{job_id}/cancel")).json()
        assert (cancel["cancelled"], cancel["previous_status"]) == (True, "claimed")
        assert await until(robot, lambda m: m["type"] == "cancel") == {"type": "cancel", "job_id": job_id}
        report = {"robot_id": "r-1", "token": grant["token"]}
        ended = (await http.post(f"/jobs/{job_id}/cancelled", json=report)).json()
        retried = (await http.post(f"/jobs/{job_id}/retry")).json()
        assert (await http.get(f"/jobs/{retried['new_job_id']}")).json()["retry_of"] == job_id
        late = (await http.post(f"/jobs/{job_id}/cancel")).json()
    assert ended["status"] == "cancelled"
    assert (late["cancelled"], late["previous_status"]) == (False, "cancelled")


@pytest.mark.parametrize(
    ("words", "before", "cancelled", "after"),
    [
        ([], "pending", True, "cancelled"),
        (["claim"], "claimed", True, "claimed"),
        (["claim", "start"], "running", True, "running"),
        (["claim", "start", "complete"], "completed", False, "completed"),
        (["claim", "fail"], "failed", False, "failed"),
        (["cancel"], "cancelled", False, "cancelled"),
    ],
)
async def test_a_cancel_in_every_state_says_what_it_did_and_twice_is_once(
    words: list[str], before: str, cancelled: bool, after: str
) -> None:
    fleet = LocalFleet(quick_limits(cancel_grace_ms=60_000))
    async with fresh(fleet=fleet) as world, world.http() as http:
        job = {"name": "weld", "max_attempts": 1}
        path = f"/jobs/{(await http.post('/jobs', json=job)).json()['job_id']}"
        await http.post("/robots/register", json=ROBOT)
        report: dict[str, Any] = {"robot_id": "r-1"}
        for word in words:
            if word == "claim":
                [held] = (await http.post("/jobs/claim", json=report | {"request_id": "q"})).json()["jobs"]
                report["token"] = held["token"]
            else:
                body = report | ({"error": "jam"} if word == "fail" else {})
                assert (await http.post(f"{path}/{word}", json=body)).status_code == 200
        first = (await http.post(f"{path}/cancel")).json()
        assert (first["cancelled"], first["previous_status"]) == (cancelled, before)
        job = (await http.get(path)).json()
        assert (job["status"], job["cancel_requested"]) == (after, before in ("claimed", "running"))
        told = (await http.get(f"{path}/history")).json()
        again = await http.post(f"{path}/cancel")
        assert (again.status_code, again.json()["previous_status"]) == (200, after)
        assert (await http.get(path)).json() == job
        assert (await http.get(f"{path}/history")).json() == told
    await fleet.close()


async def test_a_repeated_claim_gets_the_same_job_and_token(world: World) -> None:
    async with world.http() as http:
        job_id, report = await held(http, "same")
        again = await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": "same"})
        assert [(j["job_id"], j["token"]) for j in again.json()["jobs"]] == [(job_id, report["token"])]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xef\xbb\xbf{}", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"name":"x","priority":1e400}', 422),
        (b'{"name":"x","priority":NaN}', 400),
        (b"3", 422),
        (b"{}", 422),
        (b'{"name":""}', 422),
        (b'{"name":"x","priority":21}', 422),
        (b'{"name":"x","priority":9223372036854775808}', 422),
        (b'{"name":"x","status":"completed"}', 422),
        (b'{"name":"x","not_before":"tomorrow"}', 422),
        (b'{"name":"x","not_before":"2025-01-01T00:00:00"}', 422),
        (b"[]", 422),
        (b'[{"name":"x"},{"name":""}]', 422),
        (b"[" + b",".join([b'{"name":"x"}'] * 1_001) + b"]", 422),
        (b'{"name":"x","payload":{"a":"' + b"x" * 262_144 + b'"}}', 413),
        (b" " * (8 * 1024 * 1024 + 1), 413),
    ],
)
async def test_a_malformed_job_is_refused_and_nothing_is_submitted(
    world: World, content: bytes, status: int
) -> None:
    async with world.http() as http:
        answer = await http.post("/jobs", content=content, headers={"content-type": "application/json"})
        refused(answer, status)
        assert (await http.get("/jobs")).json()["jobs"] == []


async def test_a_bad_list_names_each_bad_item(world: World) -> None:
    async with world.http() as http:
        body = refused(await http.post("/jobs", json=SOME_BAD), 422)
        assert [error["index"] for error in body["errors"]] == [1, 2, 4]
        assert (await http.get("/jobs")).json()["jobs"] == []


async def test_a_partial_list_gets_one_result_for_each_item(world: World) -> None:
    async with world.http() as http:
        results = (await http.post("/jobs?partial=true", json=SOME_BAD)).json()["results"]
        none = (await http.post("/jobs?partial=true", json=[{}])).json()["results"]
        listed = (await http.get("/jobs")).json()["jobs"]
        refused(await http.post("/jobs?partial=perhaps", json=SOME_BAD), 422)
    assert [list(result) for result in results] == [["job"], ["error"], ["error"], ["job"], ["error"]]
    assert [job["name"] for job in listed] == ["d", "a"]
    assert [results[4]["error"]["index"], results[4]["error"]["code"]] == [4, "bad_time"]
    assert [list(result) for result in none] == [["error"]]


async def test_a_robot_that_holds_a_job_is_not_deleted(world: World) -> None:
    async with world.http() as http:
        job_id, report = await held(http)
        refused(await http.delete("/robots/r-1"), 409, "busy_robot")
        assert (await http.get("/robots/r-1")).status_code == 200
        await http.post(f"/jobs/{job_id}/release", json=report)
        assert (await http.delete("/robots/r-1")).status_code == 200


async def test_a_list_of_heartbeats_is_answered_in_order(world: World) -> None:
    async with world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        beats = [{"robot_id": "nobody"}, {"robot_id": "r-1", "status": "busy", "cpu_percent": 3}]
        answers = (await http.post("/robots/heartbeats", json=beats)).json()
        refused(await http.post("/robots/heartbeats", json=[{"status": "idle"}]), 422)
        refused(await http.post("/robots/heartbeats", json=[{"robot_id": "r-1"}] * 1_001), 422)
        status = (await http.get("/robots/r-1")).json()["status"]
    assert [(answer["robot_id"], answer["ok"]) for answer in answers] == [("nobody", False), ("r-1", True)]
    assert status == "busy"


async def test_robots_are_listed_by_status_and_environment(world: World) -> None:
    async with world.http() as http:
        for number, environment in enumerate(["hall", "hall", "yard"]):
            robot = {"robot_id": f"r-{number}", "environment": environment}
            await http.post("/robots/register", json=robot)
        await http.put("/robots/r-1", json={"name": "arm", "environment": "hall"})
        await http.post("/robots/r-1/heartbeat", json={"status": "error"})
        hall = (await http.get("/robots", params={"environment": "hall", "limit": 1, "offset": 1})).json()
        faulty = (await http.get("/robots", params={"status": "error"})).json()
        refused(await http.get("/robots", params={"status": "happy"}), 422)
        refused(await http.get("/robots", params={"limit": 501}), 422)
        refused(await http.put("/robots/nobody", json={}), 404)
        refused(await http.put("/robots/r-1", json={"max_concurrent_jobs": 0}), 422)
    assert ([robot["robot_id"] for robot in hall["robots"]], hall["total"]) == (["r-1"], 2)
    assert [(robot["robot_id"], robot["name"]) for robot in faulty["robots"]] == [("r-1", "arm")]


async def test_fleet_metrics_and_health_are_told(world: World) -> None:
    async with world.http("viewer") as http:
        async with world.http() as admin:
            await held(admin)
            await admin.post("/jobs", json={"name": "next"})
        metrics = (await http.get("/metrics/fleet")).json()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.port}/api/v1") as nobody:
        live, ready = await nobody.get("/health/live"), await nobody.get("/health/ready")
        await world.server.drain()
        draining = await nobody.get("/health/ready")
    assert metrics == {
        "total_robots": 1,
        "active_robots": 1,
        "idle_robots": 1,
        "busy_robots": 0,
        "offline_robots": 0,
        "active_jobs": 1,
        "queue_depth": 1,
        "stuck_jobs": 0,
    }
    assert (live.status_code, ready.status_code, draining.status_code) == (200, 200, 503)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=-1", "limit=1000000000", "limit=x", "status=done"]
)
async def test_a_bad_query_is_refused(world: World, query: str) -> None:
    async with world.http() as http:
        refused(await http.get(f"/jobs?{query}"), 422, "bad_parameter")


@pytest.mark.parametrize("cursor", ["", "0", "-1", "x", "1.5", "9" * 19, "9" * 5_000, "%00", "' OR 1=1 --"])
async def test_a_cursor_that_no_page_gave_is_refused(world: World, cursor: str) -> None:
    async with world.http() as http:
        refused(await http.get("/jobs", params={"cursor": cursor}), 400, "bad_cursor")


async def test_pages_of_jobs_cover_all_without_repeating(world: World) -> None:
    async with world.http() as http:
        ids = [j["job_id"] for j in (await http.post("/jobs", json=[{"name": "x"}] * 25)).json()["jobs"]]
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            query: dict[str, Any] = {"limit": 10} | ({"cursor": cursor} if cursor else {})
            page = (await http.get("/jobs", params=query)).json()
            found += [job["job_id"] for job in page["jobs"]]
            cursor = page["next_cursor"]
    assert found == ids[::-1]


async def test_unknown_routes_and_methods_are_problems_too(world: World) -> None:
    async with world.http() as http:
        refused(await http.get("/nothing"), 404)
        refused(await http.delete("/jobs"), 405)
        refused(await http.post("/jobs", content=b"{}", headers={"content-type": "text/plain"}), 415)


async def test_a_robot_that_waits_for_work_is_sent_away_when_the_server_goes(world: World) -> None:
    async with world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        claim = {"robot_id": "r-1", "request_id": "q", "wait_ms": 30_000}
        waiting = asyncio.create_task(http.post("/jobs/claim", json=claim))
        await http.get("/jobs")  # the claim is on its way before this
        await world.server.drain()
        assert (await asyncio.wait_for(waiting, 10)).json() == {"jobs": []}


async def test_a_robot_that_hangs_up_while_it_waits_takes_no_job(world: World) -> None:
    async with world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        claim = {"robot_id": "r-1", "request_id": "q", "wait_ms": 30_000}
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/jobs/claim", json=claim, timeout=0.2)
        job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        while (await http.get(f"/jobs/{job_id}")).json()["status"] != "pending":
            pass


@pytest.mark.parametrize("depth", [65, 300, 900, 5_000])
async def test_what_is_nested_too_deep_is_refused_and_its_neighbours_are_not(
    world: World, depth: int
) -> None:
    deep = b'{"name":"x","payload":{"a":' + b"[" * depth + b"]" * depth + b"}}"
    kind = {"content-type": "application/json"}
    status = 400 if depth == 5_000 else 422
    async with world.http() as http:
        posts = [http.post("/jobs", content=deep, headers=kind)] + [
            http.post("/jobs", json={"name": "fine"}) for _ in range(4)
        ]
        answers = await asyncio.gather(*posts)
        refused(answers[0], status)
        assert [answer.status_code for answer in answers[1:]] == [201] * 4
        job_id, report = await held_of(http, answers[1].json()["job_id"])
        content = json.dumps(report)[:-1].encode() + b',"result":' + b"[" * depth + b"]" * depth + b"}"
        refused(
            await http.post(f"/jobs/{job_id}/complete", content=content, headers=kind),
            status,
        )
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "claimed"


async def held_of(http: httpx.AsyncClient, job_id: str) -> tuple[str, dict[str, Any]]:
    await http.post("/robots/register", json=ROBOT)
    [job] = (await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": job_id})).json()["jobs"]
    return job["job_id"], {"robot_id": "r-1", "token": job["token"]}


@pytest.mark.parametrize("change", ["maintenance", "drain", "delete"])
async def test_a_claim_that_waits_ends_when_its_robot_gets_no_more_jobs(world: World, change: str) -> None:
    async with world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        claim = {"robot_id": "r-1", "request_id": "q", "wait_ms": 30_000}
        waiting = asyncio.create_task(http.post("/jobs/claim", json=claim))
        for _ in range(5):
            await http.get("/jobs")  # by then the claim waits
        if change == "delete":
            await http.delete("/robots/r-1")
        else:
            await http.put(
                "/robots/r-1/status", json={"drain": True} if change == "drain" else {"status": change}
            )
        job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        assert (await asyncio.wait_for(waiting, 10)).json() == {"jobs": []}
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "pending"


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = f"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {world.token()}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 999\r\n\r\n{{".encode())
    await writer.drain()
    async with world.http() as http:
        await http.get("/jobs")
        writer.transport.abort()
        while world.server._server.server_state.tasks:
            await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert reader is not None
