"""The reference's own sample clients, unmodified but for token, port and a time limit."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from conftest import World, until

HERE = Path(__file__).parent


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
