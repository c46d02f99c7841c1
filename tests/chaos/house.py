"""The server under test: `fleetcast serve` in a process of its own, and the actors below it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from api.auth import mint
from chaos.plan import Actor

ROOT = Path(__file__).parents[2]
START_S = 120.0
END_S = 30.0
TITLES: dict[Actor, str] = {
    "job-store": "ray::JobStoreRoom",
    "registry": "ray::RegistryRoom",
    "broadcaster": "ray::Broadcaster",
    "metrics": "ray::MetricsBroadcaster",
}


class DidNotStart(Exception):
    """The text is what the server said."""


class Process(msgspec.Struct, frozen=True):
    """`began` tells it from a later process of the same number."""

    pid: int
    parent: int
    began: str
    title: str

    def send(self, number: int) -> bool:
        """Whether it was still there."""
        if not self.runs():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    def runs(self) -> bool:
        now = process_of(self.pid)
        return now is not None and now.began == self.began


def process_of(pid: int) -> Process | None:
    """None for one that has ended, a zombie included."""
    folder = Path("/proc") / str(pid)
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else Process(pid, int(fields[1]), fields[19], title)


def descendants(root: int) -> list[Process]:
    """Of a process, itself left out, by number."""
    found = (process_of(int(name)) for name in os.listdir("/proc") if name.isdigit())
    children: dict[int, list[Process]] = {}
    for process in found:
        if process is not None:
            children.setdefault(process.parent, []).append(process)
    below, left = [], [root]
    while left:
        mine = children.get(left.pop(), [])
        below += mine
        left += [process.pid for process in mine]
    return sorted(below, key=lambda process: process.pid)


class House:
    """`environment` is added to that of the server. Its folder keeps its log and its store."""

    def __init__(self, folder: Path, environment: dict[str, str], arguments: list[str]) -> None:
        self._folder = folder
        self._stopped: list[Process] = []
        ours = {
            "JWT_SECRET_KEY": secrets.token_hex(32),
            "FLEETCAST_DATA_DIR": str(folder / "data"),
            "FLEETCAST_HOST": "127.0.0.1",
            "FLEETCAST_PORT": "0",
        } | environment
        self._secret = ours["JWT_SECRET_KEY"]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("JWT_", "FLEETCAST_"))}
        self._log = folder / "serve.log"
        with self._log.open("wb") as log:
            # In a session of its own: Ctrl-C is for us, who then stop it.
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "fleetcast", "serve", *arguments],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=kept | ours,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_up(self) -> str:
        """Its URL. Raises DidNotStart."""
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            for line in self.log().splitlines():
                if line.startswith("fleetcast: serving on "):
                    return line.removeprefix("fleetcast: serving on ")
            time.sleep(0.1)
        raise DidNotStart(self.log())

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def token(self, role: str) -> str:
        return mint(self._secret, "chaos", role, 86_400.0, time.time())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def alive(self) -> bool:
        return self._process.poll() is None

    # -- actors

    def actors(self, kind: Actor) -> list[Process]:
        """Titles are followed by the method that runs."""
        title = TITLES[kind]
        return [p for p in descendants(self.pid) if p.title.split(".")[0].split(" ")[0] == title]

    def stop(self, process: Process) -> None:
        self._stopped.append(process)
        process.send(signal.SIGSTOP)

    def go_on(self, process: Process) -> None:
        process.send(signal.SIGCONT)
        self._stopped.remove(process)

    # -- the end

    def close(self) -> list[str]:
        """Brings everything down. Returns what had to be killed, which a good server leaves nothing of."""
        below = descendants(self.pid)
        for process in self._stopped:
            process.send(signal.SIGCONT)
        if self.alive():
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        left = [process.title[:60] for process in _still_there([*below, *descendants(self.pid)])]
        self.kill()
        return left


def _still_there(processes: list[Process]) -> Iterator[Process]:
    """Kills them; a moment is given to those that end by themselves."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until and any(process.runs() for process in processes):
        time.sleep(0.1)
    for process in processes:
        if process.send(signal.SIGKILL):
            yield process
