"""Small requests at a steady pace, to see when the fleet answers, and how it says that it cannot."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import msgspec

from chaos.producers import Answer, Clerk

EVERY_S = 0.25
MAX_OPEN = 100  # a server that hangs must not drown in what asks whether it does
Room = Literal["job-store", "registry"]


class Probe(msgspec.Struct):
    room: Room
    asked_ns: int
    answer: Answer

    @property
    def ok(self) -> bool:
        return self.answer.status == 200


class Readiness(msgspec.Struct):
    at_ns: int
    ready: bool
    says: str


class Prober:
    """Asks each room for something that only it knows, and the door whether it is ready."""

    def __init__(self, clerk: Clerk, door: Clerk, job_id: str, robot_id: str) -> None:
        self.probes: list[Probe] = []
        self.readiness: list[Readiness] = []
        self._clerk = clerk
        self._door = door  # whose 503 is the answer that was asked for
        self._paths: dict[Room, str] = {"job-store": f"/jobs/{job_id}", "registry": f"/robots/{robot_id}"}
        self._open: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while True:
            for room in self._paths:
                if len(self._open) < MAX_OPEN:
                    task = asyncio.get_running_loop().create_task(self._ask(room))
                    self._open.add(task)
                    task.add_done_callback(self._open.discard)
            await self._look()
            await asyncio.sleep(EVERY_S)

    async def _ask(self, room: Room) -> None:
        asked_ns = time.monotonic_ns()
        self.probes.append(Probe(room, asked_ns, await self._clerk.ask("GET", self._paths[room])))

    async def _look(self) -> None:
        answer = await self._door.ask("GET", "/health/ready")
        says = str(answer.body.get("status", "")) if isinstance(answer.body, dict) else ""
        self.readiness.append(Readiness(answer.at_ns, answer.status == 200, says))

    async def settle(self) -> None:
        await asyncio.gather(*self._open)

    def back_after(self, room: Room, at_ns: int) -> int | None:
        """When the room first answered something that was asked after `at_ns`."""
        return min(
            (p.answer.at_ns for p in self.probes if p.room == room and p.ok and p.asked_ns > at_ns),
            default=None,
        )


async def key_reaches_the_door(admin: Clerk, nobody: Clerk, robot_id: str) -> None:
    """Returns when a new key, made through the registry, lets somebody in: the keys feed flows."""
    while (made := await admin.ask("POST", "/robot-api-keys", json={"robot_id": robot_id})).status != 201:
        await asyncio.sleep(EVERY_S)
    headers = {"X-Api-Key": made.body["api_key"]}
    while (await nobody.ask("GET", "/jobs?limit=1", headers=headers)).status != 200:
        await asyncio.sleep(EVERY_S)
