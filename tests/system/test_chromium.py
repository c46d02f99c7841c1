"""The reference's JavaScript classes in a real browser, on a page of another origin."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import SECRET, World, quick_limits, served

from actors.local import LocalFleet

pytestmark = pytest.mark.system

SAMPLES = Path(__file__).parents[1] / "samples"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Pages:
    """Serves one page, and takes what it reports by POST."""

    def __init__(self) -> None:
        self.html = ""
        self.reports: queue.Queue[Any] = queue.Queue()
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = pages.html.encode()
                self.send_response(200)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                pages.reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"

    def show(self, world: World, sample: str, use: str) -> None:
        code = (SAMPLES / sample).read_text().replace("localhost:8000", f"127.0.0.1:{world.port}")
        say = "const say = (what) => fetch('/', {method: 'POST', body: JSON.stringify(what)});"
        ids = ("robot-count", "active-robots", "queue-depth", "jobs-today")
        body = "".join(f'<b id="{name}"></b>' for name in ids)
        self.html = f"<!doctype html><body>{body}<script>{say}\n{code}\n{use}</script></body>"


@pytest.fixture
def pages() -> Iterator[Pages]:
    pages = Pages()
    pages.thread.start()
    yield pages
    pages.server.shutdown()
    pages.thread.join()
    pages.server.server_close()


@pytest.fixture
async def world(pages: Pages) -> AsyncIterator[World]:
    fleet = LocalFleet(quick_limits(), "0.0.0-test")
    async with served(fleet, allowed_origins=[pages.origin]) as world:
        yield world
    await fleet.close()


@contextlib.asynccontextmanager
async def browsing(url: str, folder: Path) -> AsyncIterator[None]:
    """In a process group of its own, which ends with it."""
    browser = await asyncio.create_subprocess_exec(
        "chromium",
        *FLAGS,
        f"--user-data-dir={folder}",
        "--remote-debugging-port=0",
        url,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        await browser.wait()


async def reported(pages: Pages) -> Any:
    return await asyncio.to_thread(pages.reports.get, True, 30)


async def test_the_metrics_client_fills_a_real_page(world: World, pages: Pages, tmp_path: Path) -> None:
    async with world.http() as http:
        await http.post("/robots/register", json={"robot_id": "r"})
        await http.post("/jobs", json=[{"name": "weld"}] * 3)
    use = """
    new MetricsStreamClient(TOKEN, 1, 'production').connect();
    const shown = () => [...document.querySelectorAll('b')].map((b) => b.textContent);
    const look = setInterval(() => {
      if (shown()[2] === '3') { clearInterval(look); say(shown()); }
    }, 50);
    """.replace("TOKEN", json.dumps(world.token("viewer")))
    pages.show(world, "metrics_stream_client.js", use)
    async with browsing(pages.origin, tmp_path):
        assert await reported(pages) == ["1", "1", "3", "0"]


async def test_a_browser_hears_events_and_the_code_and_reason_of_4001(
    world: World, pages: Pages, tmp_path: Path
) -> None:
    use = """
    new ReconnectingWebSocket(GOOD, {}).on('open', () => say('open')).on('message', (e) => say(e.data));
    new ReconnectingWebSocket(BAD, {minDelay: 50}).on('close', (e) => say([e.code, e.reason]));
    """.replace("GOOD", json.dumps(world.url("live-jobs"))).replace(
        "BAD", json.dumps(world.url("live-jobs", "x"))
    )
    pages.show(world, "reconnecting_websocket.js", use)
    async with browsing(pages.origin, tmp_path), world.http() as http:
        first = [await reported(pages) for _ in range(2)]
        job_id = (await http.post("/jobs", json={"name": "weld"})).json()["job_id"]
        event = json.loads(await reported(pages))
    assert "open" in first
    assert [4001, "Invalid authentication token"] in first
    assert (event["job_id"], event["status"]) == (job_id, "pending")


async def test_a_page_of_an_origin_that_nobody_allowed_gets_no_socket(pages: Pages, tmp_path: Path) -> None:
    fleet = LocalFleet(quick_limits())
    async with served(fleet, jwt_secret_key=SECRET) as world:
        use = (
            "const ws = new WebSocket(URL_); ws.onopen = () => say('open'); ws.onclose = (e) => say(e.code);"
        )
        pages.show(
            world, "reconnecting_websocket.js", use.replace("URL_", json.dumps(world.url("live-jobs")))
        )
        async with browsing(pages.origin, tmp_path):
            assert await reported(pages) == 1006
        assert await world.watching() == 0
    await fleet.close()
