"""Whatever the network does between them and the door, robots and producers get what was promised, later."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from conftest import fresh

from actors.client import FleetClient
from actors.local import LocalFleet
from actors.supervisor import Supervisor
from fleet.events import ROBOT_STATUS
from fleet.job import JobStatus
from fleet.limits import Limits
from network.inhabited import Inhabited
from network.proxy import Proxy, Seen, Way, Weather

LIMITS = Limits(
    heartbeat_interval_ms=500,
    missed_heartbeats=6,
    min_lease_ms=2_000,
    lease_heartbeats=4,
    cancel_grace_ms=1_000,
    backoff_base_ms=20,
    long_poll_ms=200,
    tick_ms=5,
)
HOLE_S = 3.0  # longer than a lease, and than the door waits for the answer to a ping
PINGS = {"ping_interval_s": 0.7, "ping_timeout_s": 0.7}
Trouble = Callable[[Proxy, float], Awaitable[None]]


async def only_weather(proxy: Proxy, for_s: float) -> None:
    await asyncio.sleep(for_s)


def holes(way: Way) -> Trouble:
    """After a second of nothing bad, and again."""

    async def trouble(proxy: Proxy, for_s: float) -> None:
        until = asyncio.get_running_loop().time() + for_s
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(1.0)
            async with proxy.hole(way):
                await asyncio.sleep(HOLE_S)

    return trouble


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`happened`: whether the weather did what it is here for. `steady`: it delays what robots say by less
    than would let one seem to be gone."""

    weather: Weather = Weather()
    trouble: Trouble = only_weather
    happened: Callable[[Seen], bool]
    steady: bool = False
    settings: dict[str, Any] = {}
    robots: int = 20
    producers: int = 5
    patience_s: float = 1.5  # after which a producer gives up an answer, and says it again


CASES = {
    "latency": Case(
        weather=Weather(delay_ms=(100, 300)),
        happened=lambda seen: seen.late_s > 0.1 * seen.packets > 10,
        steady=True,
    ),
    "loss": Case(weather=Weather(delay_ms=(5, 15), loss=0.05), happened=lambda seen: seen.lost > 20),
    # So narrow that a few fill it, and who asked again for what is on its way would only make it worse.
    "narrow": Case(
        weather=Weather(bytes_per_s=10_000),
        happened=lambda seen: seen.late_s > 0.1 * seen.packets > 10,
        robots=6,
        producers=1,
        patience_s=60.0,
    ),
    "reorder": Case(weather=Weather(lag_ms=(0, 600)), happened=lambda seen: seen.overtaken > 20),
    "reset": Case(weather=Weather(cut_after=3_000), happened=lambda seen: seen.cut > 20),
    "deaf": Case(trouble=holes("down"), happened=lambda seen: seen.held > 20, settings=PINGS),
    "mute": Case(trouble=holes("up"), happened=lambda seen: seen.held > 20, settings=PINGS),
}
EVERYTHING = Case(
    weather=Weather(delay_ms=(0, 100), lag_ms=(0, 200), loss=0.05, bytes_per_s=100_000, cut_after=10_000),
    happened=lambda seen: min(seen.late_s, seen.lost, seen.overtaken, seen.cut) > 0,
    robots=10,
    producers=3,
)


async def live(case: Case, for_s: float, capture: pytest.CaptureFixture[str], fleet: FleetClient) -> None:
    seed = secrets.randbits(32)
    with capture.disabled():
        print(f"bad network: seed {seed}")
    async with (
        fresh(fleet=fleet, **case.settings) as world,
        Proxy.to(world.port, case.weather, seed) as proxy,
        Inhabited.behind(proxy, world, case.robots, case.producers, case.patience_s, seed) as here,
    ):
        await here.work(case.trouble(proxy, for_s))
        assert case.happened(proxy.seen), proxy.seen
        violations = await here.violations(LIMITS)
        assert not violations, "\n".join(map(str, violations[:20]))
        assert await here.holes() == []
        assert JobStatus.COMPLETED in {job.status for job in await here.jobs()}
        gone = [event for event in await here.events(ROBOT_STATUS) if event["status"] == "offline"]
        assert not (case.steady and gone)
    await fleet.close()


async def test_on_a_bad_day_nothing_is_lost_and_nothing_is_done_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await live(EVERYTHING, 2.0, capsys, LocalFleet(LIMITS))


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
async def test_whatever_is_wrong_nothing_is_lost_and_nothing_is_done_twice(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await live(CASES[name], 8.0, capsys, LocalFleet(LIMITS))


@pytest.mark.long
async def test_nor_where_the_rooms_are_actors(ray_cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = Supervisor(f"test-{secrets.token_hex(4)}", LIMITS)
    await live(EVERYTHING, 10.0, capsys, await asyncio.to_thread(supervisor.client))
    supervisor.stop()
