"""What the server under test and those who make the load use of each node, sampled beside the
measurement."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
import psutil

MOST_TRIES = 3  # to find who listens: that reads every socket of the node
LOOK_EVERY_S = 5.0  # for processes that are new: that reads every process of the node
RAY = "ray::"


class Used(msgspec.Struct, frozen=True):
    """By one side on a node: seconds of CPU since the sampler was made, bytes of memory now."""

    processes: int = 0
    cpu_s: float = 0.0
    memory: int = 0


class NodeUsage(msgspec.Struct, frozen=True):
    """`at_s` by the node's own clock; `busy_s` and `memory` of all that runs there."""

    node: str
    at_s: float
    cores: int
    busy_s: float
    memory: int
    server: Used
    generator: Used


def memory_of_this_process() -> int:
    """Bytes that are resident."""
    return int(psutil.Process().memory_info().rss)


class _Side:
    def __init__(self) -> None:
        self._processes: dict[psutil.Process, float] = {}
        self._cpu_s = 0.0

    def keep(self, found: Collection[psutil.Process]) -> None:
        self._processes = {process: self._processes.get(process, -1.0) for process in found}

    def used(self) -> Used:
        """What a process used before it was found does not count; one that ended is forgotten."""
        memory = 0
        for process, before_s in list(self._processes.items()):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.Error:
                del self._processes[process]
                continue
            cpu_s = times.user + times.system
            self._cpu_s += cpu_s - before_s if before_s >= 0 else 0.0
            self._processes[process] = cpu_s
        return Used(len(self._processes), self._cpu_s, memory)


class UsageSampler:
    """One on each node. The server is whoever listens at `url`, as it is understood on the node `driver`, if
    that is here, with what it started, and the actors of the classes `server`; those of `generator` make the
    load."""

    def __init__(self, url: str, driver: str, server: Collection[str], generator: Collection[str]) -> None:
        self._port = _port(url, driver)
        self._tries = 0
        self._names = {"server": frozenset(server), "generator": frozenset(generator)}
        self._sides = {"server": _Side(), "generator": _Side()}
        self._looked_s = float("-inf")
        self._door: psutil.Process | None = None

    async def sample(self) -> NodeUsage:
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._look()
        times = psutil.cpu_times()._asdict()
        idle = ("idle", "iowait", "guest", "guest_nice")  # guests are in the users' times already
        return NodeUsage(
            node=node_name(),
            at_s=now_s,
            cores=psutil.cpu_count() or 1,
            busy_s=sum(spent_s for name, spent_s in times.items() if name not in idle),
            memory=int(psutil.virtual_memory().used),
            **{name: side.used() for name, side in self._sides.items()},
        )

    def _look(self) -> None:
        found: dict[str, set[psutil.Process]] = {name: set() for name in self._sides}
        for process in psutil.process_iter(["cmdline"]):
            title = (process.info["cmdline"] or [""])[0]
            name = title.removeprefix(RAY).partition(".")[0].partition("(")[0]
            for side, names in self._names.items():
                if title.startswith(RAY) and name in names:
                    found[side].add(process)
        if self._tries < MOST_TRIES and (self._door is None or not self._door.is_running()):
            self._tries += 1
            self._door = _listener(self._port)
        if self._door is not None:
            found["server"] |= {self._door, *_children(self._door)}
        found["server"] -= found["generator"] | {psutil.Process()}
        for side, processes in found.items():
            self._sides[side].keep(processes)


def node_name() -> str:
    return socket.gethostname()


def _port(url: str, driver: str) -> int | None:
    """None of a server that is elsewhere."""
    try:
        parts = urlsplit(url)
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(parts.hostname, None)}
    except (OSError, ValueError):
        return None
    ours = {each.address for addresses_of in psutil.net_if_addrs().values() for each in addresses_of}
    if driver != node_name():
        addresses -= {address for address in addresses if ip_address(address).is_loopback}
    return (parts.port or {"https": 443}.get(parts.scheme, 80)) if addresses & ours else None


def _listener(port: int | None) -> psutil.Process | None:
    """Reads every socket of the node."""
    if port is None:
        return None
    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid:
                return psutil.Process(each.pid)
    except psutil.Error:  # ended meanwhile, or somebody else's
        pass
    return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []
