"""A watcher whose network is cut: no FIN, no RST, just silence. Needs root, for a network namespace."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import World, fresh
from websockets.asyncio.client import connect

pytestmark = pytest.mark.system
HOST, PEER = "10.213.77.1", "10.213.77.2"
# Says a line once it watches, then answers pings and holds its socket whatever happens.
CLIENT = """
import sys, time
from websockets.sync.client import connect
with connect(sys.argv[1], ping_interval=None, compression=None) as socket:
    print("watching", flush=True)
    time.sleep(600)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    """Joined to us by a pair of virtual cards, `c<name>` within it."""
    name = f"fc{secrets.token_hex(3)}"
    ip("netns", "add", name)
    ip("link", "add", f"h{name}", "type", "veth", "peer", "name", f"c{name}", "netns", name)
    try:
        ip("address", "add", f"{HOST}/30", "dev", f"h{name}")
        ip("link", "set", f"h{name}", "up")
        ip("-n", name, "address", "add", f"{PEER}/30", "dev", f"c{name}")
        ip("-n", name, "link", "set", f"c{name}", "up")
        yield name
    finally:
        ip("link", "delete", f"h{name}")  # else a connection that waits for its peer keeps both cards
        ip("netns", "delete", name)


async def pinged_twice(world: World) -> None:
    """Both sockets have answered, so that a later silence is the network's."""
    sockets = world.server.door.admission.sockets()
    assert len(sockets) == 2
    async with asyncio.timeout(20):
        for socket in sockets * 2:
            while socket.unanswered_ping is None:
                await asyncio.sleep(0)
            while socket.unanswered_ping is not None:
                await asyncio.sleep(0)
    assert len(world.server.door.admission) == 2


async def test_a_watcher_that_vanishes_is_found_by_its_ping_and_the_others_stay(namespace: str) -> None:
    async with fresh(host=HOST, ping_interval_s=0.4, ping_timeout_s=0.4) as world:
        url = world.url("live-jobs").replace("127.0.0.1", HOST)
        client = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", namespace, sys.executable, "-c", CLIENT, url),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert client.stdout is not None
            assert await asyncio.wait_for(client.stdout.readline(), 20) == b"watching\n"
            async with connect(url) as healthy:
                await pinged_twice(world)
                ip("-n", namespace, "link", "set", f"c{namespace}", "down")
                async with asyncio.timeout(20):
                    while len(world.server.door.admission) > 1:
                        await asyncio.sleep(0)
                await healthy.send("ping")
                assert await healthy.recv() == "pong"
            assert client.returncode is None  # it never let go of its socket
        finally:
            client.kill()
            await client.wait()
