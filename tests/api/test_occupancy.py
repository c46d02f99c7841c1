"""Limits on sockets hold for all doors of a fleet together."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from conftest import fresh, let_in, let_in_again, quick_limits, refused

from actors.local import LocalFleet
from api.admission import Admission
from api.auth import ROLES, Principal
from api.occupancy import OccupancyExchange
from api.settings import load
from api.websocket_protocol import FleetSocket
from fleet.errors import Unavailable
from fleet.occupancy import Occupancy

LONG_MS = 1_000_000  # nobody is forgotten for his silence


class ShakyFleet(LocalFleet):
    """Whose exchange of counts can fail: it refuses, or never answers."""

    failure = ""

    async def exchange_occupancy(self, door: str, held: Occupancy) -> Occupancy:
        if self.failure == "refuses":
            raise Unavailable("no answer from the fleet", "", 1.0)
        if self.failure == "hangs":
            await asyncio.Event().wait()
        return await super().exchange_occupancy(door, held)


@pytest.fixture
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[ShakyFleet]:
    fleet = ShakyFleet(
        quick_limits(occupancy_interval_ms=5, door_timeout_ms=getattr(request, "param", LONG_MS))
    )
    yield fleet
    await fleet.close()


def forgets_after(timeout_ms: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fleet", [timeout_ms], indirect=True)


def door(fleet: LocalFleet, **settings: Any) -> Any:
    return fresh(fleet=fleet, **{"max_sockets_per_principal": 2} | settings)


async def test_who_used_up_his_limit_at_one_door_is_refused_at_another_until_he_leaves(
    fleet: ShakyFleet,
) -> None:
    async with door(fleet) as one, door(fleet) as other:
        token = one.token("viewer")
        async with one.open("live-jobs", token):
            async with one.open("robot-status", token):
                assert await refused(other, token) == (429, "principal_sockets")
                await let_in(other, one.token("viewer", sub="somebody else"))
                await let_in(other, one.token("operator"))
            await let_in_again(other, token)


async def test_sockets_here_and_at_another_door_are_added(fleet: ShakyFleet) -> None:
    async with door(fleet) as one, door(fleet) as other:
        token = one.token("viewer")
        async with one.open("live-jobs", token), other.open("live-jobs", token):
            for world in (one, other):
                assert await refused(world, token) == (429, "principal_sockets")


async def test_an_address_that_used_up_its_limit_at_one_door_is_refused_at_another(fleet: ShakyFleet) -> None:
    limited = {"max_sockets_per_address": 1, "limit_loopback": True, "max_handshakes_per_s": 1e9}
    async with door(fleet, **limited) as one, door(fleet, **limited) as other:
        async with one.open("live-jobs"):
            assert await refused(other, "") == (429, "address_sockets")
        await let_in_again(other, "")


async def test_a_door_that_stops_takes_back_what_it_said_before_anybody_would_forget_it() -> None:
    fleet = LocalFleet(quick_limits(occupancy_interval_ms=LONG_MS // 2, door_timeout_ms=LONG_MS))
    admission = Admission(load(jwt_secret_key=secrets.token_hex(32)))
    exchange, socket = OccupancyExchange(fleet, admission), cast(FleetSocket, object())
    admission.enter(socket, Principal("v", ROLES["viewer"]), "10.0.0.1")
    exchange.start()
    while await fleet.exchange_occupancy("other", Occupancy()) != Occupancy({"v": 1}, {"10.0.0.1": 1}):
        await asyncio.sleep(0)
    admission.leave(socket)
    await exchange.stop()
    assert await fleet.exchange_occupancy("other", Occupancy()) == Occupancy()
    await fleet.close()


async def test_sockets_that_a_stopped_door_held_do_not_count_at_the_next(fleet: ShakyFleet) -> None:
    async with door(fleet) as other:
        token = other.token("viewer")
        async with door(fleet) as one:
            await one.open("live-jobs", token)
            await one.open("live-jobs", token)
            await refused(other, token)
        await let_in_again(other, token)


@forgets_after(400)
async def test_a_door_that_died_without_a_word_counts_no_longer_after_a_while(fleet: ShakyFleet) -> None:
    async with door(fleet) as other:
        token = other.token("viewer")
        await fleet.exchange_occupancy("a door that dies", Occupancy({"tester": 2}))
        await refused(other, token)
        await let_in_again(other, token)


@forgets_after(400)
@pytest.mark.parametrize("failure", ["refuses", "hangs"])
async def test_a_door_that_cannot_hear_the_others_goes_on_with_its_own_counts_and_hears_them_again(
    fleet: ShakyFleet, failure: str
) -> None:
    async with door(fleet) as one, door(fleet) as other:
        token = one.token("viewer")
        async with one.open("live-jobs", token), one.open("live-jobs", token):
            await refused(other, token)
            fleet.failure = failure
            await let_in_again(other, token)
            await refused(one, token)
            fleet.failure = ""
            await refused(other, token)
