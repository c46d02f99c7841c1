"""A door that is killed with sockets and requests in its hands, while another stands beside it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from chaos.house import TITLES, House, Process, descendants
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from lossy.cluster import Cluster

SOCKETS = 500
SUBMITS = 100
JOBS = 3
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture
def doors(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[House, House]]:
    shared = {
        "RAY_AUTH_MODE": "token",
        "FLEETCAST_NAMESPACE": "killed-door",
        "FLEETCAST_DATA_DIR": str(tmp_path / "data"),
        "JWT_SECRET_KEY": "the secret of two doors, which is none",
    }
    houses: list[House] = []
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            houses.append(House(tmp_path / name, shared, ["--address", cluster.address]))
            houses[-1].wait_until_up()
        yield houses[0], houses[1]
    finally:
        for house in houses:
            house.close()


def body(number: int) -> list[dict[str, Any]]:
    return [{"name": "n", "payload": {"key": str(number), "job": job}} for job in range(JOBS)]


class Submits:
    """Requests on connections of their own, none of which waits for its answer."""

    def __init__(self, house: House, url: str) -> None:
        self._house = house
        self._url = httpx.URL(url)
        self._writers: list[asyncio.StreamWriter] = []

    async def send(self, number: int) -> asyncio.StreamReader:
        data = json.dumps(body(number)).encode()
        reader, writer = await asyncio.open_connection(self._url.host, self._url.port)
        head = (
            "POST /api/v1/jobs HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {self._house.token('operator')}",
            f"Idempotency-Key: key-{number}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
        )
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        await writer.drain()
        self._writers.append(writer)
        return reader

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


def client(house: House) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {house.token('operator')}"}
    return httpx.AsyncClient(base_url=f"{house.wait_until_up()}/api/v1", headers=headers, timeout=30)


@asynccontextmanager
async def watchers(house: House, count: int) -> AsyncIterator[list[ClientConnection]]:
    base, token = house.wait_until_up().replace("http", "ws", 1), house.token("operator")
    url = f"{base}/api/v1/ws/live-jobs?token={token}"
    some: list[ClientConnection] = []
    try:
        while len(some) < count:
            some += await asyncio.gather(*(connect(url, compression=None) for _ in range(50)))
        yield some
    finally:
        for socket in some:
            socket.transport.abort()


def store_of(cluster: Cluster) -> Process:
    [process] = [p for p in descendants(cluster.pid) if p.title.startswith(TITLES["job-store"])]
    return process


async def jobs_by_key(http: httpx.AsyncClient) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    query: dict[str, Any] = {"limit": 500}
    while True:
        page = (await http.get("/jobs", params=query)).json()
        for job in page["jobs"]:
            found.setdefault(job["payload"]["key"], []).append(job["job_id"])
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


async def ended(socket: ClientConnection) -> bool:
    try:
        async with asyncio.timeout(20):
            while True:
                await socket.recv()
    except ConnectionClosed:
        return True


async def test_each_submit_of_a_killed_door_is_wholly_there_or_not_at_all_and_may_be_sent_again(
    cluster: Cluster, doors: tuple[House, House]
) -> None:
    one, two = doors
    submits = Submits(one, one.wait_until_up())
    async with watchers(one, SOCKETS) as sockets, client(one) as alive, client(two) as http:
        readers = await asyncio.gather(*(submits.send(number) for number in range(SUBMITS // 2)))
        await readers[0].readline()
        store = store_of(cluster)
        store.send(signal.SIGSTOP)
        try:
            await asyncio.gather(*(submits.send(number) for number in range(SUBMITS // 2, SUBMITS)))
            assert (await alive.get("/health/live")).status_code == 200
            one.kill()
        finally:
            store.send(signal.SIGCONT)
        assert all(await asyncio.gather(*map(ended, sockets)))
        submits.close()
        before = await jobs_by_key(http)
        assert {len(jobs) for jobs in before.values()} == {JOBS}
        assert 0 < len(before) < SUBMITS
        async with watchers(two, SOCKETS):
            await send_again(http, before)
        after = await jobs_by_key(http)
        assert {key: len(jobs) for key, jobs in after.items()} == {str(n): JOBS for n in range(SUBMITS)}


async def send_again(http: httpx.AsyncClient, before: dict[str, list[str]]) -> None:
    for number in range(SUBMITS):
        answer = await http.post("/jobs", json=body(number), headers={"Idempotency-Key": f"key-{number}"})
        assert answer.status_code == 201
        if str(number) in before:
            assert answer.headers["Idempotency-Replayed"] == "true"
            assert sorted(job["job_id"] for job in answer.json()["jobs"]) == sorted(before[str(number)])
