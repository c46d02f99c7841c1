"""What clients may do wrong over HTTP, from the first byte on: each gets a clear answer, nothing changes,
and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from conftest import SECRET, World, end_of, hear, quick_limits, served

from actors.local import LocalFleet
from api.http_protocol import FleetHttp
from api.settings import load
from fleet.errors import Misuse
from fleet.messages import RegisterRobot, RobotSpec

JSON = {"content-type": "application/json"}
CHUNKED = "Transfer-Encoding: chunked"
JOB_CAP = 8 * 1024 * 1024
SMALL_CAP = 64 * 1024
REPORT_CAP = 1024 * 1024
ROBOT = {"robot_id": "r-1", "max_concurrent_jobs": 1}


def refused(answer: httpx.Response, status: int, code: str = "") -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return problem_of(answer.headers["content-type"], answer.content, status, code)


def problem_of(kind: str, content: bytes, status: int, code: str = "") -> dict[str, Any]:
    assert kind == "application/problem+json"
    body: dict[str, Any] = json.loads(content)
    assert body["status"] == status
    assert code in ("", body["code"]), body
    assert body["detail"]
    return body


class Wire:
    """A client that says exactly what it is told to say."""

    def __init__(self, world: World, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.world = world
        self.reader = reader
        self.writer = writer

    def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> None:
        lines = [
            f"{method} /api/v1{path} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self.world.token()}",
            *headers,
        ]
        if method != "GET":
            lines.append("Content-Type: application/json")
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def answer(self, status: int, code: str = "") -> dict[str, Any]:
        """The next answer, a problem if `status` is one."""
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
            lengths = [line for line in head.split("\r\n") if line.startswith("content-length:")]
            content = await self.reader.readexactly(int(lengths[0].split(":")[1]))
        assert head.startswith(f"http/1.1 {status} "), head
        if status < 400:
            return dict(json.loads(content))
        [kind] = [line.split(": ")[1] for line in head.split("\r\n") if line.startswith("content-type:")]
        return problem_of(kind, content, status, code)

    async def end(self) -> bytes:
        """What comes until the server closes the connection."""
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def send_for_ever(self, chunk: bytes) -> None:
        """Until the server has enough of it."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while not self.reader.at_eof():
                    self.writer.write(chunk)
                    await self.writer.drain()
                    await asyncio.sleep(0)


@asynccontextmanager
async def wire(world: World) -> AsyncIterator[Wire]:
    """Little fits on the way: what the client does not read is the server's."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", world.port))
    reader, writer = await asyncio.open_connection(sock=peer, limit=4_096)
    yield Wire(world, reader, writer)
    writer.transport.abort()


@asynccontextmanager
async def world_with(**settings: Any) -> AsyncIterator[World]:
    fleet = LocalFleet(quick_limits(), "0.0.0-test")
    async with served(fleet, **settings) as world:
        yield world
    await fleet.close()


async def held(http: httpx.AsyncClient) -> tuple[str, dict[str, Any]]:
    """A job that r-1 runs: (its id, the body of a report about it)."""
    await http.post("/robots/register", json=ROBOT)
    job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
    [job] = (await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": "q"})).json()["jobs"]
    report = {"robot_id": "r-1", "token": job["token"]}
    await http.post(f"/jobs/{job_id}/start", json=report)
    return job_id, report


# -- bodies: their length, their end, their kind


@pytest.mark.parametrize(
    ("path", "cap"),
    [
        ("/jobs", JOB_CAP),
        ("/jobs/claim", SMALL_CAP),
        ("/jobs/x/complete", REPORT_CAP),
        ("/jobs/x/start", REPORT_CAP),
        ("/robots/register", SMALL_CAP),
        ("/robots/r-1/heartbeat", SMALL_CAP),
        ("/robots/heartbeats", 2 * 1024 * 1024),
        ("/robot-api-keys", SMALL_CAP),
    ],
)
async def test_a_length_above_the_routes_cap_is_refused_before_a_byte_is_sent(
    world: World, path: str, cap: int
) -> None:
    async with wire(world) as client:
        client.ask("POST", path, f"Content-Length: {cap + 1}", "Expect: 100-continue")
        assert str(cap) in (await client.answer(413, "too_large"))["detail"]


async def test_chunks_are_counted_and_cut_at_the_cap(world: World) -> None:
    async with wire(world) as client:
        client.ask("POST", "/robots/r-1/heartbeat", CHUNKED)
        client.writer.write(b"10000\r\n" + b" " * SMALL_CAP + b"\r\n1\r\n \r\n")
        await client.answer(413, "too_large")


async def test_a_result_of_100_mb_is_refused_and_its_job_runs_on(world: World) -> None:
    async with world.http() as http, wire(world) as client:
        job_id, report = await held(http)
        client.ask("POST", f"/jobs/{job_id}/complete", "Content-Length: 100000000")
        await client.answer(413, "too_large")
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "running"
        done = await http.post(f"/jobs/{job_id}/complete", json=report | {"result": "shorter"})
        assert done.json()["status"] == "completed"


@pytest.mark.parametrize(
    ("header", "begin"), [(CHUNKED, b"1\r\n{\r\n"), ("Content-Length: 900", b"{"), (CHUNKED, b"")]
)
async def test_a_body_without_end_is_answered_in_time_and_its_connection_closed(
    monkeypatch: pytest.MonkeyPatch, header: str, begin: bytes
) -> None:
    monkeypatch.setattr(FleetHttp, "linger_s", 0.1)
    async with world_with(body_timeout_s=0.2) as world, wire(world) as client, world.http() as http:
        client.ask("POST", "/jobs", header, body=begin)
        await client.answer(408, "body_timeout")
        await client.send_for_ever(b"1\r\n \r\n" if header == CHUNKED else b"")
        assert await client.end() == b""
        assert (await http.get("/jobs")).json()["jobs"] == []


@pytest.mark.parametrize(("method", "path"), [("POST", "/jobs/x/cancel"), ("GET", "/jobs/x")])
async def test_a_body_that_nobody_asked_for_does_not_keep_its_connection(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    monkeypatch.setattr(FleetHttp, "linger_s", 0.1)
    async with world_with() as world, wire(world) as client:
        client.ask(method, path, CHUNKED)
        await client.answer(404)
        await client.send_for_ever(b"1\r\n \r\n")


async def test_who_sends_on_after_a_refusal_reads_it_and_keeps_the_connection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FleetHttp, "linger_s", 1.0)
    async with wire(world) as client, world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        client.ask("POST", "/robots/r-1/heartbeat", f"Content-Length: {JOB_CAP}")
        await client.answer(413)
        client.writer.write(b" " * JOB_CAP)
        claim = b'{"robot_id":"r-1","request_id":"q","wait_ms":1500}'
        client.ask("POST", "/jobs/claim", f"Content-Length: {len(claim)}", body=claim)
        assert await client.answer(200) == {"jobs": []}


async def test_a_connection_that_was_kept_after_a_refusal_is_closed_when_idle(world: World) -> None:
    world.server._server.config.timeout_keep_alive = 0.3  # type: ignore[assignment]
    async with wire(world) as client:
        client.ask("POST", "/robots/r-1/heartbeat", f"Content-Length: {SMALL_CAP + 1}")
        client.writer.write(b" " * SMALL_CAP)
        await client.answer(413)
        client.writer.write(b" ")
        assert await client.end() == b""


async def test_headers_without_end_are_cut_at_64_kib_and_a_long_path_is_refused(world: World) -> None:
    async with wire(world) as client:
        client.writer.write(b"GET /api/v1/jobs HTTP/1.1\r\nx: ")
        for _ in range(16):
            client.writer.write(b"x" * 4_096)
            await client.writer.drain()
        await client.answer(431, "headers_too_large")
    async with world.http() as http:
        refused(await http.get("/jobs", params={"robot_id": "x" * 9_000}), 414, "uri_too_long")
        refused(await http.get("/jobs/" + "x" * 9_000), 414, "uri_too_long")


async def test_each_request_has_room_for_its_own_headers_and_a_body_takes_none_of_it(world: World) -> None:
    job = json.dumps({"name": "x", "payload": {"a": "x" * 100_000}}).encode()
    live = b"GET /api/v1/health/live HTTP/1.1\r\nHost: x\r\n"
    async with wire(world) as client, world.http() as http:
        client.ask("POST", "/jobs", f"Content-Length: {len(job)}", body=job + live)
        assert (await client.answer(201))["name"] == "x"
        for _ in range(2):
            client.writer.write(b"x: " + b"x" * 40_000)
            await client.writer.drain()
            await http.get("/health/live")  # by then the server has read it
            client.writer.write(b"\r\n\r\n" + live)
            assert await client.answer(200) == {"status": "live"}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of the server's side takes little too."""
    made = FleetHttp.connection_made

    def connection_made(self: FleetHttp, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        made(self, transport)

    monkeypatch.setattr(FleetHttp, "connection_made", connection_made)


# Below and above where uvicorn stops writing: then the second answer waits for the first.
@pytest.mark.parametrize(("size", "asked"), [(40_000, 1), (250_000, 2)])
async def test_who_does_not_read_its_answer_is_cut_off(
    narrow: None, world: World, monkeypatch: pytest.MonkeyPatch, size: int, asked: int
) -> None:
    monkeypatch.setattr(FleetHttp, "unread_s", 0.2)
    world.server._server.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
    async with world.http() as http:
        await http.post("/jobs", json={"name": "x", "payload": {"a": "x" * size}})
    async with wire(world) as client, asyncio.timeout(20):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(asked):
            client.ask("GET", "/jobs")
        connections = world.server._server.server_state.connections
        while not connections:
            await asyncio.sleep(0)
        while connections:
            await asyncio.sleep(0)


async def test_who_reads_its_answer_slowly_gets_it_all(
    narrow: None, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FleetHttp, "unread_s", 0.3)
    job = {"name": "x", "payload": {"a": "x" * 250_000}, "required_capabilities": ["nobody-has-this"]}
    pause = {"robot_id": "r-1", "request_id": "q", "wait_ms": 60}
    async with world.http() as http, wire(world) as client:
        await http.post("/robots/register", json=ROBOT)
        await http.post("/jobs", json=job)
        client.ask("GET", "/jobs", "Connection: close")
        data = b""
        while chunk := await client.reader.read(16_384):
            data += chunk
            await http.post("/jobs/claim", json=pause)
    assert data.startswith(b"HTTP/1.1 200")
    assert len(json.loads(data.partition(b"\r\n\r\n")[2])["jobs"]) == 1


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "content_type"),
        ({"content-type": "text/plain"}, "content_type"),
        ({"content-type": "application/jsonp"}, "content_type"),
        ({"content-type": "application/json; charset=utf-16"}, "content_type"),
        (JSON | {"content-encoding": "gzip"}, "content_encoding"),
        (JSON | {"content-encoding": "identity, br"}, "content_encoding"),
    ],
)
async def test_a_body_that_is_not_plain_json_is_refused_unread(
    world: World, headers: dict[str, str], code: str
) -> None:
    bomb = gzip.compress(b"[" + b"0," * 1_000_000 + b"0]")
    async with world.http() as http:
        refused(await http.post("/jobs", content=bomb, headers=headers), 415, code)
        good = await http.post(
            "/jobs",
            content=b'{"name":"x"}',
            headers={"content-type": 'application/JSON; charset="UTF-8"', "content-encoding": "identity"},
        )
        assert good.status_code == 201


# -- JSON that means the same to everybody


def short(value: object) -> str:
    return repr(value)[:40]


def in_payload(value: bytes) -> bytes:
    return b'{"name":"x","payload":{"a":' + value + b"}}"


@pytest.mark.parametrize(
    ("content", "status", "code", "word"),
    [
        (b"", 400, "not_json", "empty"),
        (b" \n", 400, "not_json", "empty"),
        (b"\xef\xbb\xbf{}", 400, "not_json", "byte order mark"),
        (b'{"name":"\xff"}', 400, "not_json", "UTF-8"),
        ('{"name":"x"}'.encode("utf-16"), 400, "not_json", "UTF-8"),
        (in_payload(b"[" * 10_000 + b"]" * 10_000), 400, "not_json", "deep"),
        (in_payload(b"[" * 65 + b"]" * 65), 422, "too_deep", "64"),
        (in_payload(b'"\\ud800"'), 400, "not_json", "pair"),
        (in_payload(b'"\\udc00\\ud800"'), 400, "not_json", "pair"),
        (in_payload(b"NaN"), 400, "not_json", "invalid"),
        (in_payload(b"-Infinity"), 400, "not_json", "invalid"),
        (in_payload(b"1e400"), 422, "invalid", "out of range"),
        (in_payload(b"1" * 5_000), 422, "invalid", "out of range"),
        (in_payload(b"-0"), 422, "bad_number", "-0"),
        (in_payload(b"[1, -0 ]"), 422, "bad_number", "-0"),
        (b'{"name":"x","priority":-0}', 422, "bad_number", "-0"),
        (in_payload(b"9223372036854775808"), 422, "bad_number", "2^63"),
        (in_payload(b"-9223372036854775809"), 422, "bad_number", "2^63"),
        (in_payload(b'["9223372036854775808",18446744073709551615]'), 422, "bad_number", "2^63"),
        (in_payload(b"18446744073709551616"), 422, "bad_number", "2^63"),
        (b'{"name":"x","name":"y"}', 422, "duplicate_key", '"name"'),
        (b'{"name":"x","n\\u0061me":"x"}', 422, "duplicate_key", '"name"'),
        (in_payload(b'{"k":[{"b":1,"b":1}]}'), 422, "duplicate_key", '"b"'),
        (in_payload(b'{"k":"\\u003a\\u003A:","k":2}'), 422, "duplicate_key", '"k"'),
        (in_payload(b'{"k":1,"k":2,"c":"\\u003a"}'), 422, "duplicate_key", '"k"'),
        (in_payload(b'{"' + b"k" * 9_000 + b'":1,"' + b"k" * 9_000 + b'":2}'), 422, "duplicate_key", "kkk"),
        (in_payload(b'{"k":"' + b"x" * 70_000 + b'","k":2}'), 422, "duplicate_key", "twice"),
        (in_payload(b"[" + b"[]," * 50_000 + b"0]"), 422, "too_many", "50000"),
        (in_payload(b"[" + b"0," * 300_000 + b"0]"), 413, "payload_too_large", "262144"),
        (b'{"name":"x","attempt":3}', 422, "invalid", "attempt"),
        (b'{"name":"x","colour":"red"}', 422, "invalid", "colour"),
        (b'{"name":"x","' + b"k" * 60_000 + b'":1}', 422, "invalid", "kkk"),
    ],
    ids=short,
)
async def test_json_that_is_none_or_may_be_read_in_two_ways_is_refused_and_changes_nothing(
    world: World, content: bytes, status: int, code: str, word: str
) -> None:
    async with world.http() as http:
        body = refused(await http.post("/jobs", content=content, headers=JSON), status, code)
        assert word in body["detail"]
        assert len(body["detail"]) < 300
        if not content.lstrip().startswith(b"{"):
            return
        listed = b'[{"name":"first"},' + content + b"]"
        answer = await http.post("/jobs", content=listed, headers=JSON)
        body = refused(answer, 400 if answer.status_code == 400 else 422)
        assert answer.status_code == 400 or [error["index"] for error in body["errors"]] == [1]
        assert (await http.get("/jobs")).json()["jobs"] == []


@pytest.mark.parametrize(
    "value",
    [
        b'":-0, 99999999999999999999 {\\"a\\":1,\\"a\\":2}"',
        b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}',
        b'{"\\u003a":":","\\\\u003a":"\\\\\\u003a","x":"2025-01-02T00:00:00Z"}',
        b"[9223372036854775807,-9223372036854775808,-0.0,0.1234567890123456789012,1e-0,12345678901234567890.5]",
        b'"' + b"[{" * 40_000 + b'"',
        b'"\\ud83d\\ude00"',
    ],
)
async def test_json_that_only_looks_odd_is_taken_as_it_is(world: World, value: bytes) -> None:
    async with world.http() as http:
        submitted = await http.post("/jobs", content=in_payload(value), headers=JSON)
        assert submitted.status_code == 201, submitted.text
        assert submitted.json()["payload"] == {"a": json.loads(value)}


@pytest.mark.parametrize("result", [b"18446744073709551616", b'{"a":1,"a":2}', b"{result}", b"-0"])
async def test_a_result_that_is_no_sound_json_fails_its_report_only(world: World, result: bytes) -> None:
    async with world.http() as http:
        job_id, report = await held(http)
        content = json.dumps(report)[:-1].encode() + b',"result":' + result + b"}"
        answer = await http.post(f"/jobs/{job_id}/complete", content=content, headers=JSON)
        assert answer.status_code in (400, 422)
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "running"


@pytest.mark.parametrize("path", ["/jobs", "/jobs?partial=true", "/robots/heartbeats"])
async def test_a_list_with_too_many_items_is_not_read_to_its_end(world: World, path: str) -> None:
    endless = b"[" + b"0," * 2_000 + b"this is no JSON"
    async with world.http() as http:
        body = refused(await http.post(path, content=endless, headers=JSON), 422, "bad_list")
        assert "1000" in body["detail"]


async def test_a_list_of_heartbeats_names_each_bad_one_and_moves_none(world: World) -> None:
    beats = [{"robot_id": "r-1", "status": "busy"}, {"status": "idle"}, {"robot_id": "r-1", "status": "odd"}]
    async with world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        body = refused(await http.post("/robots/heartbeats", json=beats), 422, "invalid")
        assert [error["index"] for error in body["errors"]] == [1, 2]
        assert (await http.get("/robots/r-1")).json()["status"] == "idle"
        assert (await http.post("/robots/heartbeats", json=[])).json() == []


# -- claims, filters, sockets


async def test_a_claim_that_nothing_fits_ends_empty_and_the_job_stays(world: World) -> None:
    async with world.http() as http:
        await http.post("/robots/register", json=ROBOT)
        none = await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": "a", "wait_ms": 20})
        job = {"name": "weld", "required_capabilities": ["nobody-has-this"]}
        job_id = (await http.post("/jobs", json=job)).json()["job_id"]
        unfit = await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": "b", "wait_ms": 20})
        assert (none.json(), unfit.json()) == ({"jobs": []}, {"jobs": []})
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "pending"


async def test_a_claim_of_nobody_or_of_a_full_robot_is_refused_and_leases_nothing(world: World) -> None:
    async with world.http() as http:
        await held(http)
        job_id = (await http.post("/jobs", json={"name": "next"})).json()["job_id"]
        nobody = {"robot_id": "nobody", "request_id": "a"}
        refused(await http.post("/jobs/claim", json=nobody), 404)
        refused(await http.post("/jobs/claim", json={"robot_id": "r-1", "request_id": "b"}), 409)
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "pending"


async def test_a_token_of_another_job_or_robot_or_of_before_changes_nothing(world: World) -> None:
    async with world.http() as http:
        job_id, old = await held(http)
        await http.post(f"/jobs/{job_id}/release", json=old)
        await http.post("/robots/register", json={"robot_id": "r-2"})
        other_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        tokens = {}
        for robot_id in ("r-1", "r-2"):
            claim = {"robot_id": robot_id, "request_id": "again"}
            [job] = (await http.post("/jobs/claim", json=claim)).json()["jobs"]
            tokens[job["job_id"]] = {"robot_id": robot_id, "token": job["token"]}
        mine, others = tokens[job_id], tokens[other_id]
        before = (await http.get(f"/jobs/{job_id}")).json()
        stranger = mine | {"robot_id": others["robot_id"]}
        borrowed = others | {"robot_id": mine["robot_id"]}
        wrong = [(old, 409), (borrowed, 409), (mine | {"token": 99}, 409), (others, 409), (stranger, 403)]
        for report, status in wrong:
            refused(await http.post(f"/jobs/{job_id}/start", json=report), status)
            refused(await http.post(f"/jobs/{job_id}/fail", json=report | {"error": "x"}), status)
        assert (await http.get(f"/jobs/{job_id}")).json() == before
        assert (await http.post(f"/jobs/{job_id}/start", json=mine)).status_code == 200


@pytest.mark.parametrize("text", ["' OR 1=1 --", "%", "_", "*", "$.robot_id", "weld%", "\x00", "x" * 5_000])
async def test_what_filters_by_is_taken_literally(world: World, text: str) -> None:
    async with world.http() as http:
        await held(http)
        for name in ("robot_id", "environment"):
            answer = await http.get("/jobs", params={name: text})
            assert (answer.status_code, answer.json()) == (200, {"jobs": [], "next_cursor": None})
        robots = await http.get("/robots", params={"environment": text})
        assert (robots.status_code, robots.json()) == (200, {"robots": [], "total": 0})
        refused(await http.get("/jobs", params={"status": text}), 422, "bad_parameter")
        refused(await http.get(f"/jobs/{httpx.QueryParams({'a': text})}"), 404)


async def test_the_older_of_two_sockets_of_one_robot_is_closed_and_its_job_goes_on(world: World) -> None:
    async with world.http() as http, world.open("robot/r-1") as older:
        await hear(older)
        job_id, report = await held(http)
        async with world.open("robot/r-1") as newer:
            await hear(newer)
            assert (await end_of(older))[0] == 4409
            done = {"type": "complete", "id": 1, "job_id": job_id, "token": report["token"]}
            await newer.send(json.dumps(done))
            assert (await hear(newer))["type"] == "ack"
        assert (await http.get(f"/jobs/{job_id}")).json()["status"] == "completed"


@pytest.mark.parametrize("many", [200, pytest.param(5_000, marks=pytest.mark.long)])
async def test_many_robots_that_wait_for_work_keep_nobody_else_waiting(world: World, many: int) -> None:
    names = [f"r-{number}" for number in range(many)]
    specs = [RobotSpec(robot_id=name) for name in names]
    await asyncio.gather(*(world.fleet.administer(RegisterRobot(spec)) for spec in specs))
    async with contextlib.AsyncExitStack() as robots, world.http() as http:
        waiting = [await robots.enter_async_context(wire(world)) for _ in names]
        for name, robot in zip(names, waiting, strict=True):
            claim = json.dumps({"robot_id": name, "request_id": "q", "wait_ms": 30_000}).encode()
            robot.ask("POST", "/jobs/claim", f"Content-Length: {len(claim)}", body=claim)
        while len(world.server._server.server_state.tasks) < many:
            await asyncio.sleep(0)
        for name in names[:200]:
            assert (await http.post(f"/robots/{name}/heartbeat", json={})).json()["ok"] is True
        assert len(world.server._server.server_state.tasks) == many
        lists = [await http.post("/jobs", json=[{"name": "x"}] * 200) for _ in range(many // 200)]
        submitted = [job["job_id"] for answer in lists for job in answer.json()["jobs"]]
        granted = [job["job_id"] for robot in waiting for job in (await robot.answer(200))["jobs"]]
        assert sorted(granted) == sorted(submitted)


async def test_pages_neither_skip_nor_repeat_while_jobs_come(world: World) -> None:
    async with world.http() as http:
        before = [
            job["job_id"] for job in (await http.post("/jobs", json=[{"name": "x"}] * 9)).json()["jobs"]
        ]
        page = (await http.get("/jobs", params={"limit": 4})).json()
        found = [job["job_id"] for job in page["jobs"]]
        while page["next_cursor"]:
            await http.post("/jobs", json=[{"name": "new"}] * 3)
            page = (await http.get("/jobs", params={"limit": 4, "cursor": page["next_cursor"]})).json()
            found += [job["job_id"] for job in page["jobs"]]
        assert found == before[::-1]


# -- how often who may ask


async def test_a_viewer_who_asks_too_often_is_told_when_to_come_back() -> None:
    async with world_with(requests_per_s=0.01, requests_burst=3) as world, world.http("viewer") as http:
        answers = [await http.get("/jobs") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        refused(answers[3], 429, "too_many_requests")
        assert 90 <= int(answers[3].headers["retry-after"]) <= 100
        for role, claims in (("operator", {}), ("viewer", {"sub": "somebody else"})):
            other = {"authorization": f"Bearer {world.token(role, **claims)}"}
            assert {(await http.get("/jobs", headers=other)).status_code for _ in range(3)} == {200}
        refused(await http.get("/jobs"), 429)
        assert (await http.get("/health/live")).status_code == 200


async def test_a_robots_key_is_bounded_and_operators_too_where_settings_say_so() -> None:
    async with world_with(requests_per_s=0.01, requests_burst=2, limit_operators=True) as world:
        async with world.http() as http:
            key = (await http.post("/robot-api-keys", json={"robot_id": "r-1"})).json()["api_key"]
            await http.post("/robots/register", json=ROBOT)
            refused(await http.get("/jobs"), 429)
        async with httpx.AsyncClient(headers={"x-api-key": key}) as robot:
            url = f"http://127.0.0.1:{world.port}/api/v1/robots/r-1/heartbeat"
            answers = [await robot.post(url, json={}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]


async def test_who_has_no_good_token_is_bounded_by_address_whatever_headers_say() -> None:
    async with world_with(failures_per_s=0.01, failures_burst=2, limit_loopback=True) as world:
        base_url = f"http://127.0.0.1:{world.port}/api/v1"
        async with httpx.AsyncClient(base_url=base_url) as nobody, world.http("viewer") as viewer:
            answers = [
                await nobody.get("/jobs", headers={"x-forwarded-for": f"192.0.2.{n}", "x-api-key": f"k{n}"})
                for n in range(3)
            ]
            assert [answer.status_code for answer in answers] == [401, 401, 429]
            assert "retry-after" in answers[2].headers
            assert (await viewer.get("/jobs")).status_code == 200


async def test_who_asks_from_this_machine_without_a_good_token_is_not_bounded() -> None:
    async with world_with(failures_per_s=0.01, failures_burst=1) as world, httpx.AsyncClient() as nobody:
        url = f"http://127.0.0.1:{world.port}/api/v1/jobs"
        assert {(await nobody.get(url)).status_code for _ in range(5)} == {401}


# -- what goes around every answer


@pytest.mark.parametrize("given", ["abc", "A-1_b.2", "x" * 64])
async def test_a_request_id_that_is_harmless_is_taken_over(world: World, given: str) -> None:
    async with world.http() as http:
        good = await http.get("/jobs", headers={"x-request-id": given})
        bad = await http.get("/jobs/none", headers={"x-request-id": given})
    assert good.headers["x-request-id"] == bad.headers["x-request-id"] == given
    assert refused(bad, 404)["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a;b", "<b>", "\xe9".encode("latin-1")])
async def test_any_other_request_id_is_replaced(world: World, given: str | bytes) -> None:
    async with world.http() as http:
        answers = [await http.get("/nothing", headers={"x-request-id": given}) for _ in range(2)]
    made = [refused(answer, 404)["request_id"] for answer in answers]
    assert made == [answer.headers["x-request-id"] for answer in answers]
    assert len(set(made)) == 2
    assert all(len(request_id) == 16 for request_id in made)


async def test_every_answer_keeps_browsers_careful_and_does_not_name_the_server(world: World) -> None:
    async with world.http() as http, httpx.AsyncClient(base_url=http.base_url) as nobody:
        answers = [
            await http.get("/jobs"),
            await http.get("/nothing"),
            await http.delete("/jobs"),
            await nobody.get("/jobs"),
            await nobody.get("/health/live"),
            await http.post("/jobs", content=b"{", headers=JSON),
        ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    assert answers[2].headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("path", ["/jobs/", "/robots/r-1/", "/health/live/"])
async def test_a_path_with_a_final_slash_is_not_redirected_to_a_location_with_the_token(
    world: World, path: str
) -> None:
    async with world.http() as http:
        answer = await http.get(path, params={"token": world.token()})
    refused(answer, 404, "http")
    assert "location" not in answer.headers


async def test_what_is_no_http_is_answered_as_a_problem_too(world: World) -> None:
    async with wire(world) as client:
        client.writer.write(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n")
        assert len((await client.answer(400, "http"))["request_id"]) == 16
        assert await client.end() == b""


async def test_what_nobody_expected_is_told_by_its_id_and_explained_in_the_log_only(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise RuntimeError("the inside of the server")

    monkeypatch.setattr(world.fleet, "counts", broken)
    async with world.http() as http:
        answer = await http.get("/metrics/fleet", headers={"x-request-id": "find-me"})
    assert refused(answer, 500, "internal")["request_id"] == "find-me"
    assert "inside" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "find-me" in record.getMessage()
    assert "/metrics/fleet" in record.getMessage()
    assert "the inside of the server" in caplog.text


async def test_only_pages_of_allowed_origins_may_read_answers() -> None:
    async with world_with(allowed_origins=["https://ops.example"]) as world, world.http() as http:
        ours, foreign = {"origin": "https://ops.example"}, {"origin": "https://ops.example.evil"}
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        good, bad = (
            await http.options("/jobs", headers=ours | asked),
            await http.options("/jobs", headers=foreign | asked),
        )
        read, unread = await http.get("/jobs", headers=ours), await http.get("/jobs", headers=foreign)
        problem = await http.get("/nothing", headers=ours)
    for answer in (good, read, problem):
        assert answer.headers["access-control-allow-origin"] == "https://ops.example"
        assert "x-request-id" in answer.headers
        assert "access-control-allow-credentials" not in answer.headers
    for answer in (bad, unread):
        assert "access-control-allow-origin" not in answer.headers
    assert (good.status_code, bad.status_code) == (200, 400)


async def test_a_failure_can_be_read_by_an_allowed_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise RuntimeError

    async with world_with(allowed_origins=["https://ops.example"]) as world, world.http() as http:
        monkeypatch.setattr(world.fleet, "counts", broken)
        answer = await http.get("/metrics/fleet", headers={"origin": "https://ops.example"})
        refused(answer, 500)
        assert answer.headers["access-control-allow-origin"] == "https://ops.example"


@pytest.mark.parametrize(
    "origin", ["*", "null", "ops.example", "https://ops.example/", "https://Ops.example"]
)
def test_what_is_no_origin_is_refused_at_start(origin: str) -> None:
    with pytest.raises(Misuse, match="FLEETCAST_ALLOWED_ORIGINS"):
        load(jwt_secret_key=SECRET, allowed_origins=[origin])
