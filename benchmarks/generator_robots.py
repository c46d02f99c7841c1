"""Our robots, for the benchmark of generators: `python generator_robots.py URL ROBOTS INTERVAL_S`."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from simulators.load.fleet import LoadFleet
from simulators.scenario import Fleet


async def main(url: str, robots: str, interval_s: str) -> None:
    heartbeats = {"interval": f"{interval_s}s"}
    fleet = Fleet.model_validate({"count": int(robots), "heartbeats": heartbeats})
    await LoadFleet(url, "", "bench", fleet, False, 1, 1).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
