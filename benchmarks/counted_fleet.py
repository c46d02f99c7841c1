"""`fleetcast serve`, with the actor calls of every process counted: of the door and of the actors.

    BENCH_CALLS=folder python benchmarks/counted_fleet.py serve --port 8000

Each process keeps its number in a file of its own in that folder.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
from pathlib import Path
from typing import Any

from actors.ray_room import RayRoom

FOLDER = "BENCH_CALLS"
NUMBER = struct.Struct("=Q")


@functools.cache
def counter() -> mmap.mmap:
    """Of this process; shared memory, so that a call costs no system call."""
    path = Path(os.environ[FOLDER]) / str(os.getpid())
    path.write_bytes(NUMBER.pack(0))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), NUMBER.size)


def calls(folder: Path) -> int:
    """By all processes, until now."""
    return sum(NUMBER.unpack(path.read_bytes())[0] for path in folder.iterdir())


class CountedRoom(RayRoom):
    """Travels into the actors as itself, so that theirs count too."""

    def __reduce__(self) -> tuple[Any, ...]:
        return CountedRoom, (self._name, self._namespace)

    async def _ask(self, method: str, args: tuple[Any, ...]) -> Any:
        NUMBER.pack_into(counter(), 0, NUMBER.unpack_from(counter())[0] + 1)
        return await super()._ask(method, args)


def main() -> None:
    import fleetcast
    from actors import supervisor

    vars(supervisor)["RayRoom"] = CountedRoom
    fleetcast.main()


if __name__ == "__main__":
    import counted_fleet  # what is defined in __main__ cannot be found by an actor

    counted_fleet.main()
