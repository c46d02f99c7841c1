"""`fleetcast serve`, with the actor calls of every process counted: of the door and of the actors.

    BENCH_CALLS=folder python benchmarks/counted_fleet.py serve --port 8000

Each process keeps its numbers in a file of its own in that folder.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
from pathlib import Path
from typing import Any

import msgspec

from actors.ray_room import RayRoom
from actors.supervisor import JOB_STORE

FOLDER = "BENCH_CALLS"
NUMBERS = struct.Struct("=QQQ")


class Counted(msgspec.Struct, frozen=True):
    """`batches` are those of its calls that brought commands to the job store."""

    calls: int
    batches: int
    commands: int

    def __sub__(self, before: Counted) -> Counted:
        return Counted(
            self.calls - before.calls, self.batches - before.batches, self.commands - before.commands
        )


@functools.cache
def counter() -> mmap.mmap:
    """Of this process; shared memory, so that a call costs no system call."""
    path = Path(os.environ[FOLDER]) / str(os.getpid())
    path.write_bytes(NUMBERS.pack(0, 0, 0))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), NUMBERS.size)


def counted(folder: Path) -> Counted:
    """By all processes, until now."""
    each = [NUMBERS.unpack(path.read_bytes()) for path in folder.iterdir()]
    return Counted(*map(sum, zip(*each, strict=True)))


def calls(folder: Path) -> int:
    return counted(folder).calls


class CountedRoom(RayRoom):
    """Travels into the actors as itself, so that theirs count too."""

    def __reduce__(self) -> tuple[Any, ...]:
        return CountedRoom, (self._name, self._namespace)

    async def _ask(self, method: str, args: tuple[Any, ...]) -> Any:
        calls, batches, commands = NUMBERS.unpack_from(counter())
        if self._name == JOB_STORE and method == "execute":
            batches, commands = batches + 1, commands + len(args[0])
        NUMBERS.pack_into(counter(), 0, calls + 1, batches, commands)
        return await super()._ask(method, args)


def main() -> None:
    import fleetcast
    from actors import supervisor

    vars(supervisor)["RayRoom"] = CountedRoom
    fleetcast.main()


if __name__ == "__main__":
    import counted_fleet  # what is defined in __main__ cannot be found by an actor

    counted_fleet.main()
