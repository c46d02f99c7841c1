"""What is said of CPU and memory: by sums that can be checked, and of processes that are really there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from simulators_made import usage_log

from simulators.load.usage import UsageSampler, node_name
from simulators.load.usage_log import UsageLog

LISTENS = """
import socket
listening = socket.create_server(("127.0.0.1", 0))
held = bytearray(64 * 2**20)
for place in range(0, len(held), 4096):
    held[place] = 1
print(listening.getsockname()[1], flush=True)
while input():
    sum(range(20_000_000))
    print("done", flush=True)
"""


def test_the_figures_of_a_run_are_those_of_its_nodes() -> None:
    figures = usage_log().figures(robots=1_024)
    assert figures is not None
    assert figures.server is not None
    assert figures.generator is not None
    assert (figures.server.processes, figures.generator.processes) == (3, 4)
    assert (figures.server.cpu_cores, figures.generator.cpu_cores) == (1.5, 0.5)
    memory = figures.server
    assert (memory.memory_mib_first, memory.memory_mib_last, memory.memory_mib_max) == (101.0, 110.0, 110.0)
    assert figures.generator.memory_mib_max == 100.0
    assert (figures.server.kib_per_robot, figures.generator.kib_per_robot) == (1.0, 2.0)
    assert [(node.node, node.cores, node.cpu_cores) for node in figures.nodes] == [
        ("a", 4, 2.0),
        ("b", 4, 2.0),
    ]


def test_a_handful_of_robots_has_no_memory_of_its_own() -> None:
    figures = usage_log().figures(robots=999)
    assert figures is not None
    assert figures.server is not None
    assert figures.server.kib_per_robot is None


def test_nothing_is_said_of_what_was_not_seen() -> None:
    assert UsageLog().figures(10) is None


@pytest.fixture
def listener() -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", LISTENS], **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


async def test_who_listens_at_the_url_is_the_server(listener: subprocess.Popen[str]) -> None:
    assert listener.stdin is not None
    assert listener.stdout is not None
    port = int(listener.stdout.readline())
    sampler = UsageSampler(f"http://localhost:{port}/", node_name(), ["Room"], ["Load"])
    before = await sampler.sample()
    assert before.server.processes == 1
    assert before.server.memory > 64 * 2**20
    listener.stdin.write("go on\n")
    listener.stdin.flush()
    await asyncio.to_thread(listener.stdout.readline)
    now = await sampler.sample()
    assert now.server.cpu_s > before.server.cpu_s
    assert now.busy_s > before.busy_s
    assert now.generator.processes == 0
    elsewhere = UsageSampler(f"http://localhost:{port}/", "another-node", ["Room"], ["Load"])
    assert (await elsewhere.sample()).server.processes == 0


async def test_a_server_that_is_elsewhere_or_gone_is_not_looked_for_here() -> None:
    for url in ("http://192.0.2.1:1", "http://[", "http://127.0.0.1:1"):
        assert (await UsageSampler(url, node_name(), [], []).sample()).server.processes == 0
