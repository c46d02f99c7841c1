"""The contract of the four streams, through a real uvicorn and a real client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from contextlib import AsyncExitStack

import httpx
import jwt
import pytest
from conftest import SECRET, World, end_of, fresh, hear, opcodes, quick_limits, served, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from actors.local import LocalFleet
from api.websocket_protocol import FleetSocket
from fleet.feed import Batch

STREAMS = ["live-jobs", "robot-status", "queue-metrics", "metrics/stream"]
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def closing(world: World, path: str, token: str | None, **query: object) -> tuple[int, str]:
    async with world.open(path, token, **query) as socket:
        closed = await end_of(socket)
    return closed


def forged(**header: str) -> list[str]:
    claims = {"sub": "x", "roles": ["admin"], "type": "access", "iat": 1, "exp": 4_000_000_000}
    other = "another secret of at least thirty-two bytes"
    return [
        "garbage",
        "a.b.c",
        "crpa_" + "0" * 49,
        jwt.encode(claims, "", algorithm="none"),
        jwt.encode(claims, other, algorithm="HS256"),
        jwt.encode(claims, SECRET, algorithm="HS512"),
        jwt.encode(claims | {"exp": 2}, SECRET, algorithm="HS256"),
        jwt.encode(claims | {"type": "refresh"}, SECRET, algorithm="HS256"),
        jwt.encode(claims | {"nbf": 3_900_000_000}, SECRET, algorithm="HS256"),
        jwt.encode(claims | {"iat": 3_900_000_000}, SECRET, algorithm="HS256"),
        jwt.encode(claims | {"roles": ["emperor"]}, SECRET, algorithm="HS256"),
        jwt.encode({k: v for k, v in claims.items() if k != "exp"}, SECRET, algorithm="HS256"),
        jwt.encode({k: v for k, v in claims.items() if k != "sub"}, SECRET, algorithm="HS256"),
        jwt.encode(claims, SECRET, algorithm="HS256", headers={"crit": ["x"], "x": 1}),
    ]


@pytest.mark.parametrize("path", STREAMS)
async def test_a_missing_token_is_closed_4001_with_its_reason(world: World, path: str) -> None:
    assert await closing(world, path, None) == (4001, "Authentication required")


@pytest.mark.parametrize("path", STREAMS)
async def test_a_bad_token_is_closed_4001_and_never_registered(world: World, path: str) -> None:
    for token in forged():
        assert await closing(world, path, token) == (4001, "Invalid authentication token")
    assert await world.watching() == 0


@pytest.mark.parametrize("path", STREAMS)
async def test_a_token_that_expires_closes_its_socket_4001(world: World, path: str) -> None:
    assert await closing(world, path, world.token(ttl_s=1.2)) == (4001, "token expired")


@pytest.mark.parametrize("path", STREAMS)
async def test_ping_gets_pong_and_other_text_nothing(world: World, path: str) -> None:
    async with world.open(path) as socket:
        for text in ("PING", " ping", '{"type":"ping"}', "ping"):
            await socket.send(text)
        first = await asyncio.wait_for(socket.recv(), 5)
        while first != "pong":
            assert set(json.loads(first)) in ({"depth", "timestamp"}, {"type", "timestamp", "data"})
            first = await asyncio.wait_for(socket.recv(), 5)


@pytest.mark.parametrize("path", STREAMS)
async def test_binary_is_closed_1003_and_too_much_text_1009(world: World, path: str) -> None:
    for message, code in ((b"x", 1003), ("x" * (64 * 1024 + 1), 1009)):
        async with world.open(path) as socket:
            await socket.send(message)
            closed = await end_of(socket)
        assert closed[0] == code


@pytest.mark.parametrize("path", STREAMS)
async def test_a_server_that_goes_away_says_1001(world: World, path: str) -> None:
    async with world.open(path) as socket:
        await world.server.drain()
        closed = await end_of(socket)
    assert closed[0] == 1001


@pytest.mark.parametrize("path", STREAMS)
async def test_a_closed_socket_is_counted_out(world: World, path: str) -> None:
    async with world.open(path) as socket:
        await socket.send("ping")
        await socket.recv()
        assert await world.watching() == 1
    while await world.watching():
        pass


async def flood(world: World, path: str, size: int) -> None:
    """`size` bytes of events; metrics/stream sends its newest only."""
    length = size if path == "metrics/stream" else 1_000
    filler = "x" * (length - 100)
    event = json.dumps({"depth": 1, "job_id": filler}).encode()
    rooms = world.fleet.rooms
    if path == "metrics/stream":
        metrics = rooms.broadcasters["metrics"]
        await metrics.publish(Batch(metrics._lineage, 0, 0, 0, [], event))
        return
    sources = {
        "live-jobs": rooms.job_store._events,
        "robot-status": rooms.registry._events,
        "queue-metrics": rooms.job_store._depths,
    }
    sources[path].publish([event] * (size // length))


async def until_dropped(world: World, slow: int) -> None:
    while (seen := await world.connections())["slow_disconnects"] < slow:
        pass
    assert seen["slow_disconnects"] == slow


async def until_pong(socket: ClientConnection) -> None:
    while await socket.recv() != "pong":
        pass


@pytest.mark.parametrize("path", STREAMS)
async def test_a_watcher_that_takes_no_byte_is_dropped_and_the_others_are_not(path: str) -> None:
    # Snapshots of the fleet's own would take the place of the flood's.
    async with fresh(refresh_ms=600_000, send_timeout_s=0.2) as world:
        query = {"interval": 1} if path == "metrics/stream" else {}
        async with world.mute(path, **query), world.open(path, **query) as healthy:
            reading = asyncio.create_task(until_pong(healthy))
            await flood(world, path, 900_000)
            await until_dropped(world, 1)
            assert (await world.watching()) == 1
            await healthy.send("ping")
            await asyncio.wait_for(reading, 10)


@pytest.mark.parametrize("path", ["live-jobs", "robot-status", "queue-metrics"])
async def test_a_watcher_a_mebibyte_behind_is_dropped_before_its_time(path: str) -> None:
    async with fresh(send_timeout_s=600) as world, world.mute(path):
        await flood(world, path, 300_000)
        await flood(world, path, 2_000_000)
        await until_dropped(world, 1)


@pytest.mark.parametrize("path", [*STREAMS, "robot/r-1"])
async def test_a_peer_that_answers_no_ping_is_aborted_and_one_that_does_stays(path: str) -> None:
    async with fresh(ping_interval_s=0.05, ping_timeout_s=0.1) as world, world.open("live-jobs") as healthy:
        async with world.mute(path) as peer:
            heard = await peer.read_on()
        kinds = opcodes(heard)
        assert 0x9 in kinds  # a ping
        assert 0x8 not in kinds  # a close would wait for a peer that is gone
        while await world.watching() > 1:
            pass
        await healthy.send("ping")
        assert await asyncio.wait_for(healthy.recv(), 10) == "pong"
        assert (await world.connections())["slow_disconnects"] == 0


@pytest.mark.parametrize("path", STREAMS)
async def test_more_than_thirty_messages_a_second_for_long_is_closed_1008(path: str) -> None:
    async with fresh(inbound_patience_s=0.05) as world, world.open(path) as socket:
        ended = asyncio.create_task(end_of(socket))
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send("ping")
                await asyncio.sleep(0)
        assert (await ended)[0] == 1008


@pytest.mark.parametrize("path", STREAMS)
async def test_text_that_is_not_utf_8_is_closed_1007(world: World, path: str) -> None:
    async with world.open(path) as socket:
        await socket.send(b"\xff\xfe", text=True)
        assert (await end_of(socket))[0] == 1007


@pytest.mark.parametrize("path", STREAMS)
async def test_a_foreign_origin_is_refused_before_accept(world: World, path: str) -> None:
    for origin in ("http://evil.example", "null"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(world.url(path), origin=origin)  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
    own = f"http://127.0.0.1:{world.port}"
    async with connect(world.url(path), origin=own) as socket:  # type: ignore[arg-type]
        await socket.send("ping")
        assert await socket.recv()


async def test_a_request_line_over_8_kib_gets_414(world: World) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with world.open("live-jobs", "x" * 9_000):
            pass
    assert refused.value.response.status_code == 414


async def test_a_job_is_seen_from_pending_to_completed_with_exact_keys(world: World) -> None:
    async with world.open("live-jobs") as jobs, world.open("robot/r-1") as robot, world.http() as http:
        await robot.send('{"type":"register","id":1}')
        await until(robot, lambda message: message["type"] == "ack")
        await robot.send('{"type":"claim","id":2,"request_id":"q","wait_ms":9000}')
        job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        grant = (await until(robot, lambda message: message.get("jobs")))["jobs"][0]
        held = {"job_id": job_id, "token": grant["token"]}
        assert grant["job_id"] == job_id
        for report in ({"type": "start", "id": 3}, {"type": "complete", "id": 4, "result": {"ok": True}}):
            await robot.send(json.dumps(report | held))
            assert (await hear(robot)) == {"type": "ack", "id": report["id"]}
        seen = [await hear(jobs) for _ in range(4)]
        job = (await http.get(f"/jobs/{job_id}")).json()
    assert [event["status"] for event in seen] == ["pending", "claimed", "running", "completed"]
    assert {tuple(event) for event in seen} == {("job_id", "status", "timestamp")}
    assert all(event["job_id"] == job_id and STAMP.fullmatch(event["timestamp"]) for event in seen)
    assert (job["status"], job["result"], job["robot_id"]) == ("completed", {"ok": True}, "r-1")


async def test_every_heartbeat_is_one_event_and_silence_is_offline_with_the_last_figures(
    world: World,
) -> None:
    async with world.open("robot-status") as status, world.open("robot/r-2") as robot:
        await robot.send('{"type":"register"}')
        assert (await hear(status))["status"] == "idle"
        beat = '{"type":"heartbeat","status":"busy","cpu_percent":45.23,"memory_mb":1024.5}'
        for _ in range(3):
            await robot.send(beat)
        beats = [await hear(status) for _ in range(3)]
        gone = await hear(status)
    keys = ("robot_id", "status", "cpu_percent", "memory_mb", "timestamp")
    assert {tuple(event) for event in [*beats, gone]} == {keys}
    assert {(e["status"], e["cpu_percent"], e["memory_mb"]) for e in beats} == {("busy", 45.23, 1024.5)}
    assert (gone["status"], gone["cpu_percent"], gone["memory_mb"]) == ("offline", 45.23, 1024.5)


async def test_queue_metrics_begins_with_the_depth_and_follows_it(world: World) -> None:
    async with world.open("queue-metrics") as empty, world.http() as http:
        first = await hear(empty)
        assert (tuple(first), first["depth"]) == (("depth", "timestamp"), 0)
        await http.post("/jobs", json=[{"name": "a"}, {"name": "b"}])
        assert (await hear(empty))["depth"] == 2
        async with world.open("queue-metrics") as late:
            assert (await hear(late))["depth"] == 2


async def test_metrics_stream_sends_its_first_snapshot_at_once_and_then_every_interval(
    world: World,
) -> None:
    async with world.open("metrics/stream", interval=1, environment="production") as socket:
        first, second = await hear(socket), await hear(socket)
    for message in (first, second):
        assert tuple(message) == ("type", "timestamp", "data")
        assert message["type"] == "metrics"
        assert tuple(message["data"]) == ("robots", "jobs", "queue", "system")
        assert tuple(message["data"]["robots"]) == ("total", "active", "idle", "busy", "offline")
        assert tuple(message["data"]["jobs"]) == ("pending", "running", "completed_today", "failed_today")
        assert tuple(message["data"]["queue"]) == ("depth", "avg_wait_time_ms")
        assert tuple(message["data"]["system"]) == ("uptime_seconds", "version")


@pytest.mark.parametrize("interval", ["0", "61", "-1", "1.5", "abc", "NaN", "1e9", "", "١"])
async def test_a_bad_interval_is_closed_1008_naming_it(world: World, interval: str) -> None:
    code, reason = await closing(world, "metrics/stream", "", interval=interval)
    assert code == 1008
    assert "interval" in reason


async def test_a_parameter_said_twice_is_closed_1008_naming_it(world: World) -> None:
    url = world.url("metrics/stream", interval=5) + "&interval=6"
    async with connect(url, compression=None) as socket:
        code, reason = await end_of(socket)
    assert code == 1008
    assert "interval" in reason


@pytest.mark.parametrize("environment", ["a\nb", '",x="', "ü", "x" * 65, "", "a b"])
async def test_a_bad_environment_is_closed_1008_naming_it(world: World, environment: str) -> None:
    code, reason = await closing(world, "metrics/stream", "", environment=environment)
    assert code == 1008
    assert "environment" in reason


async def test_dev_mode_lets_a_missing_token_in_and_still_refuses_a_wrong_one() -> None:
    fleet = LocalFleet(quick_limits())
    async with served(fleet, jwt_dev_mode=True) as world:
        async with world.open("live-jobs", None) as socket:
            await socket.send("ping")
            assert await socket.recv() == "pong"
        assert (await closing(world, "live-jobs", "wrong"))[0] == 4001
    await fleet.close()


async def test_the_newest_socket_of_a_robot_wins(world: World) -> None:
    async with world.open("robot/r-3") as older, world.open("robot/r-3") as newer:
        closed = await end_of(older)
        await newer.send('{"type":"register","id":"x"}')
        assert await until(newer, lambda message: message["type"] == "ack")
    assert closed[0] == 4409


async def test_environments_are_counted_and_only_the_first_32_have_a_name(world: World) -> None:
    async with AsyncExitStack() as stack:
        for number in [*range(33), 0]:
            await stack.enter_async_context(world.open("metrics/stream", environment=f"e{number}"))
        seen = (await world.connections())["environments"]
    assert (seen["e0"], seen["e31"], seen["other"], len(seen)) == (2, 1, 1, 33)


async def test_two_watchers_get_the_same_events_in_the_same_order(world: World) -> None:
    async with world.open("live-jobs") as one, world.open("live-jobs") as two, world.http() as http:
        await http.post("/jobs", json=[{"name": "n"}] * 500)
        first = [await one.recv() for _ in range(500)]
        second = [await two.recv() for _ in range(500)]
    assert first == second
    assert len({json.loads(text)["job_id"] for text in first}) == 500


async def test_http_refuses_what_sockets_refuse(world: World) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.port}/api/v1") as http:
        answer = await http.get("/jobs")
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
    async with world.http("viewer") as http:
        assert (await http.post("/jobs", json={"name": "x"})).status_code == 403


async def test_the_first_snapshot_is_not_an_interval_late_when_the_fleet_has_said_nothing_yet(
    world: World,
) -> None:
    feed = world.server.door.hub.feeds["metrics"]
    feed.current = None
    async with world.open("metrics/stream", interval=60) as socket:
        assert (await hear(socket))["type"] == "metrics"


@pytest.mark.parametrize(
    "begun", [b"", b"GET /api/v1/ws/live-jobs", b"GET /api/v1/ws/live-jobs HTTP/1.1\r\nHost: x\r\n"]
)
async def test_a_handshake_that_does_not_come_in_time_is_closed(begun: bytes) -> None:
    async with fresh(headers_timeout_s=0.2) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(begun)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        async with world.open("live-jobs") as socket:
            await socket.send("ping")
            assert await socket.recv() == "pong"


async def test_a_peer_that_says_goodbye_and_reads_nothing_does_not_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.websocket_protocol.CLOSE_TIMEOUT_S", 0.1)
    async with fresh(send_timeout_s=600) as world:
        open_ones = world.server._server.server_state.connections
        async with world.mute("live-jobs") as peer:
            await flood(world, "live-jobs", 900_000)
            [socket] = [one for one in open_ones if isinstance(one, FleetSocket)]
            while not socket.blocked:
                await asyncio.sleep(0)
            peer.say(b"\x88\x80\0\0\0\0")  # a close frame, masked
            async with asyncio.timeout(10):
                while socket in open_ones:
                    await asyncio.sleep(0)
        assert socket.unsent_bytes() == 0


async def test_dev_mode_lets_nobody_in_who_calls_this_machine_by_another_name() -> None:
    fleet = LocalFleet(quick_limits())
    async with served(fleet, jwt_dev_mode=True) as world, httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{world.port}/api/v1/jobs"
        foreign = await http.get(url, headers={"Host": "evil.example"})
        own = await http.get(url, headers={"Host": f"localhost:{world.port}"})
    assert (foreign.status_code, own.status_code) == (401, 200)
    await fleet.close()
