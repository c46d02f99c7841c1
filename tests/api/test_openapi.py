"""The description of the HTTP surface says what the server does; Schemathesis tries to prove otherwise."""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from conftest import World, quick_limits, served
from starlette.routing import Route

from actors.local import LocalFleet
from api.app import make_app
from api.settings import load
from fleet.limits import Limits

PUBLIC = {"/api/v1/health/live", "/api/v1/health/ready", "/api/v1/openapi.json"}
CONFIG = Path(__file__).with_name("schemathesis.toml")
API = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


@pytest.fixture
async def wide_world() -> AsyncIterator[World]:
    """Claims do not wait, and find jobs that every robot can do."""
    fleet = LocalFleet(quick_limits(max_claim_wait_ms=20), "0.0.0-test")
    async with served(fleet) as world, world.http() as http:
        await http.post("/jobs", json=[{"name": "plain"}] * 1_000)
        yield world
    await fleet.close()


async def description(world: World) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.port}") as anybody:
        answer = await anybody.get("/api/v1/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    document: dict[str, Any] = answer.json()
    return document


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation)"""
    paths = document["paths"].items()
    return [(method.upper(), path, one) for path, item in paths for method, one in item.items()]


async def test_the_description_is_valid_openapi(world: World) -> None:
    document = await description(world)
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document).validate()
    for method, path, one in operations(document):
        assert one["summary"], (method, path)
        assert one["tags"], (method, path)


async def test_every_route_is_described_and_nothing_else(world: World) -> None:
    app = make_app(LocalFleet(Limits()), load(jwt_dev_mode=True))
    routes = [route for route in app.routes if isinstance(route, Route)]
    routed = [
        (method, route.path_format) for route in routes for method in (route.methods or set()) - {"HEAD"}
    ]
    described = [(method, path) for method, path, _ in operations(await description(world))]
    assert sorted(described) == sorted(routed)


async def test_the_page_tells_every_operation_and_no_other(world: World) -> None:
    described = {(m, path.removeprefix("/api/v1")) for m, path, _ in operations(await description(world))}
    assert told(API) == {(method, re.sub(r"\{\w+\}", "{id}", path)) for method, path in described}


async def test_only_the_body_of_a_rotation_may_be_left_out(world: World) -> None:
    bodies = {(m, path): one.get("requestBody") for m, path, one in operations(await description(world))}
    optional = [route for route, body in bodies.items() if body and not body["required"]]
    assert optional == [("POST", "/api/v1/robot-api-keys/{key_id}/rotate")]


def told(page: str) -> set[tuple[str, str]]:
    """Of the table of routes: `GET`, `PUT /a/b`, `/c` are GET and PUT /a/b, and PUT /a/c."""
    found, methods, pending, path = set(), [""], [], ""
    for row in re.findall(r"^\| (`.*?) \|", page.split("\n## HTTP\n")[1].split("\n## ")[0], re.MULTILINE):
        for words in re.findall(r"`([^`]+)`", row):
            method, _, rest = words.rpartition(" ")
            if not method and not rest.startswith("/"):
                pending.append(rest)
                continue
            sibling = not method and rest.count("/") == 1 and path.count("/") > 1
            path = path.rsplit("/", 1)[0] + rest if sibling else rest
            methods, pending = ([*pending, method] if method else methods), []
            found |= set(itertools.product(methods, [path]))
    return found


async def test_every_operation_answers_as_described_when_all_is_well(world: World) -> None:
    """Random requests seldom get so far: a job must be held to be worked on."""
    api = schemathesis.openapi.from_dict(await description(world))
    seen = set()
    async with world.http() as http:

        async def ask(method: str, path: str, body: Any = None, **ids: str) -> Any:
            answer = await http.request(method, path.format(**ids), json=body)
            assert answer.is_success, answer.text
            api[f"/api/v1{path}"][method].validate_response(answer)
            seen.add((method, f"/api/v1{path}"))
            return answer.json()

        await a_whole_life(ask)
    assert seen == {(method, path) for method, path, _ in operations(await description(world))}


async def a_whole_life(ask: Any) -> None:
    robot = {"robot_id": "r-1"}
    await ask("POST", "/robots/register", robot)
    await ask("PUT", "/robots/{robot_id}", {"max_concurrent_jobs": 9}, **robot)
    await ask("POST", "/jobs", [{"name": "x", "payload": {"a": [1.5, None]}}] * 5)
    for word in ("complete", "fail", "release", "cancelled"):
        job, held = await held_job(ask, word)
        await ask("POST", "/jobs/{job_id}/start", held, **job)
        await ask("PUT", "/jobs/{job_id}/progress", held | {"progress": 50}, **job)
        if word == "cancelled":
            await ask("POST", "/jobs/{job_id}/cancel", **job)
        await ask("GET", "/jobs/{job_id}", **job)
        await ask("POST", f"/jobs/{{job_id}}/{word}", held | {"retryable": False}, **job)
    await ask("POST", "/jobs/{job_id}/retry", **job)
    await ask("GET", "/jobs/{job_id}/history", **job)
    await ask("GET", "/jobs/{job_id}/explain", **job)
    await ask("GET", "/jobs/dead-letters")
    await ask("POST", "/jobs/redrive", {"filter": {}})
    for path in ("/jobs", "/robots", "/metrics/fleet", "/metrics/connections"):
        await ask("GET", path)
    for path in ("/health/live", "/health/ready", "/openapi.json"):
        await ask("GET", path)
    await ask("POST", "/robots/{robot_id}/heartbeat", {"status": "busy"}, **robot)
    await ask("POST", "/robots/heartbeats", [robot, {"robot_id": "nobody"}])
    await ask("PUT", "/robots/{robot_id}/status", {"drain": True}, **robot)
    await ask("GET", "/robots/{robot_id}", **robot)
    key = await ask("POST", "/robot-api-keys", robot | {"ttl_s": 9})
    newer = await ask("POST", "/robot-api-keys/{key_id}/rotate", key_id=key["key_id"])
    await ask("POST", "/robot-api-keys/{key_id}/revoke", key_id=newer["key_id"])
    await ask("GET", "/robot-api-keys")
    await ask("DELETE", "/robots/{robot_id}", **robot)


async def held_job(ask: Any, request_id: str) -> tuple[dict[str, str], dict[str, Any]]:
    """(the id of a job that r-1 got, what it says about it)"""
    [job] = (await ask("POST", "/jobs/claim", {"robot_id": "r-1", "request_id": request_id}))["jobs"]
    return {"job_id": job["job_id"]}, {"robot_id": "r-1", "token": job["token"]}


async def test_all_but_health_and_the_description_wants_a_token(world: World) -> None:
    document = await description(world)
    secured = [(m, path) for m, path, one in operations(document) if one["security"]]
    assert {path for _, path, one in operations(document) if not one["security"]} == PUBLIC
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.port}") as nobody:
        for method, path in secured:
            answer = await nobody.request(method, re.sub(r"\{\w+\}", "x", path), content=b"{")
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), (method, path)


async def test_what_may_be_got_has_a_head(world: World) -> None:
    async with world.http() as http:
        for path in ("/jobs", "/robots", "/metrics/fleet", "/health/ready", "/openapi.json"):
            head, got = await http.head(path), await http.get(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/jobs", "GET, HEAD, POST"),
        ("/jobs/claim", "POST"),
        ("/jobs/claim/cancel", "POST"),
        ("/jobs/job-1", "GET, HEAD"),
        ("/robots/register", "POST"),
        ("/robots/r-1", "DELETE, GET, HEAD, PUT"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(world: World, path: str, allowed: str) -> None:
    async with world.http() as http:
        answer = await http.patch(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_no_robot_takes_the_place_of_a_route(world: World) -> None:
    async with world.http() as http:
        for word in ("register", "heartbeats"):
            answer = await http.post("/robots/register", json={"robot_id": word})
            assert (answer.status_code, answer.json()["code"]) == (409, "reserved_id")
        assert (await http.get("/robots")).json()["total"] == 0


@pytest.mark.parametrize("robot_id", ["r-1\n", ".", "..", ".hidden", ""])
async def test_an_id_that_no_path_can_carry_is_refused(world: World, robot_id: str) -> None:
    async with world.http() as http:
        assert (await http.post("/robots/register", json={"robot_id": robot_id})).status_code == 422


async def test_a_whole_number_may_be_written_with_a_fraction_of_nothing(world: World) -> None:
    async with world.http() as http:
        whole = {"name": "x", "priority": 3.0, "timeout_s": 1.5, "payload": {"a": -0.0, "b": [2.0]}}
        submitted = await http.post("/jobs", json=whole)
        job = submitted.json()
        broken = await http.post("/jobs", json={"name": "x", "priority": 3.5})
        huge = await http.post("/jobs", json={"name": "x", "priority": 1e300})
        wrong = await http.post("/jobs", json={"name": 3.0})
    assert (job["priority"], job["timeout_s"]) == (3, 1.5)
    assert '"payload":{"a":-0.0,"b":[2.0]}' in submitted.text  # the client's own data stays as it came
    assert (broken.status_code, huge.status_code, wrong.status_code) == (422, 422, 422)


@pytest.mark.parametrize("query", ["limit=5&limit=6", "status=pending&status=failed", "limit=", "status="])
async def test_a_query_that_is_repeated_or_empty_is_refused_by_name(world: World, query: str) -> None:
    async with world.http() as http:
        answer = await http.get(f"/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_parameter")
    assert query.partition("=")[0] in answer.json()["detail"]


async def attack(world: World, seed: int, examples: int, *, token: str | None) -> str:
    """Runs all checks of Schemathesis on every operation, the description itself included, which it would
    leave out; its report, or "" if nothing failed."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
        *("run", f"http://127.0.0.1:{world.port}/api/v1/openapi.json", "--checks", "all", "--no-color"),
        *("--seed", str(seed), "--max-examples", str(examples), "--continue-on-failure"),
        *("--include-path-regex", "."),
        *(("--header", f"Authorization: Bearer {token}") if token else ()),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=CONFIG.parent
    )
    try:
        report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    text = report.decode()
    assert f"Operations:       {len(operations(await description(world)))} selected" in text, text
    return "" if process.returncode == 0 else text


async def test_schemathesis_finds_no_failure_signed_in(wide_world: World) -> None:
    failures = await attack(wide_world, 1, 12, token=wide_world.token(ttl_s=3_600))
    assert not failures, failures


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("signed_in", [True, False])
async def test_schemathesis_finds_no_failure_with_seeds_of_the_day(
    wide_world: World, signed_in: bool
) -> None:
    seed = secrets.randbits(32)
    token = wide_world.token(ttl_s=3_600) if signed_in else None
    failures = await attack(wide_world, seed, 150 if signed_in else 30, token=token)
    assert not failures, f"seed {seed}: {failures}"
