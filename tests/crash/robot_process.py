"""A simulated robot in a process of its own: `python -m crash.robot_process URL NAME`, its token in `TOKEN`.

Says on its standard output what it says to the server, a JSON line each, before it is sent.
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from fleet.messages import FromRobot, ServerMessage
from simulators.load.swarm import Robot, Swarm
from simulators.robot import RobotProfile

NEVER_DONE = RobotProfile(service_mean_s=1e9, claim_wait_ms=500)


class Aloud:
    """Observes the robot."""

    def on_heard(self, robot: Robot, message: ServerMessage) -> None: ...

    def on_said(self, robot: Robot, message: FromRobot) -> None:
        print(msgspec.json.encode(message).decode(), flush=True)

    def on_left(self, robot: Robot) -> None: ...


async def main(url: str, name: str) -> None:
    await Swarm(url, os.environ["TOKEN"], 1, NEVER_DONE, prefix=name, observer=Aloud()).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
