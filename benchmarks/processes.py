"""Processes of a benchmark: started, spoken to, ended; what they cost."""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PARTING_S = 5.0


class RoundFailed(Exception):
    """What a benchmark wanted of a server did not come about."""


@contextmanager
def child(run: Callable[..., None], *args: Any) -> Iterator[Connection]:
    """`run(*args, pipe)` in a process of its own. It ends itself when this end of the pipe closes, however
    that comes about; one that does not is killed."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run, args=(*args, there))
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join(PARTING_S)
        process.kill()
        process.join()


async def heard(pipe: Connection) -> Any:
    """What comes next through the pipe. Raises EOFError when the other side is gone."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(pipe.fileno())
    return pipe.recv()


def told(pipe: Connection, within_s: float = 60.0) -> Any:
    """What the child says next. Raises RoundFailed if it says nothing, ends, or says RoundFailed."""
    try:
        answer = pipe.recv() if pipe.poll(within_s) else RoundFailed(f"no answer within {within_s:g} s")
    except (EOFError, ConnectionError):
        answer = RoundFailed("a process of the benchmark ended: see above")
    if isinstance(answer, RoundFailed):
        raise answer
    return answer


def raise_file_limit() -> None:
    """A socket is a file, and the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process, those that ended included, by the scheduler's clock: what
    clock_getcpuclockid(3) gives on Linux, which Python does not offer for another process."""
    return time.clock_gettime((~pid << 3) | 2)


def own_kib(pid: int) -> int:
    """Memory that only this process has (USS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))
