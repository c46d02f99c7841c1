"""A door's claims: admissions that are kept, and a job store that loses sight of the door."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors.claims import Claims
from actors.client import FleetClient, Rooms
from actors.lanes import Lanes
from fleet.errors import Conflict, Unavailable
from fleet.job import Job
from fleet.limits import Limits
from fleet.messages import (
    LATE_ADMISSION,
    Admitted,
    Answer,
    Claim,
    Command,
    GiveBack,
    Granted,
    Outbox,
    Parked,
    Refusal,
    RegisterRobot,
    RegistryCommand,
    RobotSpec,
)

DRAINING = Refusal("Conflict", "r is draining and gets no jobs", "draining")


class Store:
    """Parks every claim; forgets the door once, when it is told to."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.parked = asyncio.Event()
        self.forget = asyncio.Event()
        self.epoch = 1

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        claims = [command for command in commands if isinstance(command, Claim)]
        self.claims += claims
        self.parked.set()
        return [Parked(claim.request_id) for claim in claims]

    async def outbox(self, door: str, epoch: int, cursor: int, wait_ms: int) -> Outbox:
        if epoch == self.epoch:
            await self.forget.wait()
            self.forget.clear()
            self.parked.clear()
            self.epoch += 1
        return Outbox(self.epoch, 0, [], [])

    async def pulse(self) -> str:
        return ""


class Registry:
    def __init__(self, *replies: Any) -> None:
        self.replies = iter(replies)

    async def execute(self, commands: Sequence[RegistryCommand]) -> list[Any]:
        return [next(self.replies) for _ in commands]


class Held(Registry):
    """Answers when it may."""

    def __init__(self, *replies: Any) -> None:
        super().__init__(*replies)
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def execute(self, commands: Sequence[RegistryCommand]) -> list[Any]:
        replies = await super().execute(commands)
        self.asked.set()
        await self.go.wait()
        return replies


def admitted(admission: int) -> Admitted:
    return Admitted(["weld"], "hall", 2, 30_000, admission)


async def forgotten(again: Any) -> tuple[Store, asyncio.Future[Answer], Claims]:
    """A claim that waited when the store forgot its door, and what the registry says of it then."""
    store = Store()
    claims = Claims(store, Registry(admitted(1), again), Limits(), Lanes(store, Limits()).put)
    waiting = claims.claim("r", "q", 1, 30_000)
    await store.parked.wait()
    store.forget.set()
    return store, waiting, claims


async def test_a_claim_that_goes_in_again_is_admitted_anew() -> None:
    store, waiting, claims = await forgotten(admitted(2))
    while len(store.claims) < 2:
        await asyncio.sleep(0)
    assert [(claim.request_id, claim.admission) for claim in store.claims] == [("q", 1), ("q", 2)]
    assert store.claims[1].max_concurrent_jobs == 2
    assert not waiting.done()
    await claims.close()


@pytest.mark.parametrize("refusal", [DRAINING, Refusal("NotFound", "no robot r", "not_found")])
async def test_a_robot_that_is_to_get_no_more_does_not_go_in_again(refusal: Refusal) -> None:
    store, waiting, claims = await forgotten(refusal)
    assert (await asyncio.wait_for(waiting, 10)).grants == []
    assert len(store.claims) == 1
    await claims.close()


class Told:
    """Sends claims, and keeps what else the store is told."""

    def __init__(self, store: Store) -> None:
        self._lanes = Lanes(store, Limits())
        self.others = asyncio.Queue[Command]()

    def put(self, command: Command) -> asyncio.Future[Any]:
        if isinstance(command, Claim):
            return self._lanes.put(command)
        self.others.put_nowait(command)
        return asyncio.get_running_loop().create_future()


class Slow(Store):
    """Fails on the first claim, hangs on others; what it granted all the same comes by the outbox."""

    def __init__(self, granted: Granted) -> None:
        super().__init__()
        self.granted = granted
        self.failed = asyncio.Event()
        self.calls = 0

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        self.calls += 1
        if self.calls > 1:
            await asyncio.Event().wait()
        raise Unavailable("no answer")

    async def outbox(self, door: str, epoch: int, cursor: int, wait_ms: int) -> Outbox:
        await self.failed.wait()
        self.failed.clear()
        return Outbox(1, 1, [Answer("r", "q", [self.granted])], [])


async def test_what_is_granted_to_a_robot_that_was_told_of_no_answer_goes_back() -> None:
    store = Slow(Granted(Job(job_id="j", name="weld"), 7, 30_000))
    told = Told(store)
    claims = Claims(store, Registry(admitted(1)), Limits(), told.put)
    with pytest.raises(Unavailable):
        await claims.claim("r", "q", 1, 30_000)
    store.failed.set()
    back = await asyncio.wait_for(told.others.get(), 10)
    assert isinstance(back, GiveBack)
    assert (back.robot_id, back.call, back.job_id, back.token) == ("r", 1, "j", 7)
    await claims.close()


async def test_what_is_granted_to_a_robot_that_asked_again_reaches_it() -> None:
    store = Slow(Granted(Job(job_id="j", name="weld"), 7, 30_000))
    told = Told(store)
    claims = Claims(store, Registry(admitted(1)), Limits(), told.put)
    with pytest.raises(Unavailable):
        await claims.claim("r", "q", 1, 30_000)
    again = claims.claim("r", "q", 1, 30_000)
    store.failed.set()
    assert (await asyncio.wait_for(again, 10)).grants == [store.granted]
    assert told.others.empty()
    await claims.close()


class Grants(Store):
    """Grants nothing, at once; knows from which admission on claims are not too late."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = 0

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        claims = [command for command in commands if isinstance(command, Claim)]
        self.claims += claims
        late = Refusal("Conflict", "too late", LATE_ADMISSION)
        return [late if c.admission < self.ended else Answer(c.robot_id, c.request_id, []) for c in claims]


async def test_the_registry_is_not_asked_for_every_claim() -> None:
    store = Grants()
    claims = Claims(store, Registry(admitted(1)), Limits(), Lanes(store, Limits()).put)
    for request_id in ("p", "q"):
        await asyncio.wait_for(claims.claim("r", request_id, 1, 0), 10)
    assert [claim.admission for claim in store.claims] == [1, 1]
    await claims.close()


async def test_an_admission_is_kept_for_a_time_of_its_own() -> None:
    store, limits = Grants(), Limits(admission_ms=1)
    claims = Claims(store, Registry(admitted(1), admitted(2)), limits, Lanes(store, limits).put)
    await asyncio.wait_for(claims.claim("r", "p", 1, 0), 10)
    over = asyncio.get_running_loop().time() + 0.002
    while asyncio.get_running_loop().time() < over:
        await asyncio.sleep(0)
    await asyncio.wait_for(claims.claim("r", "q", 1, 0), 10)
    assert [claim.admission for claim in store.claims] == [1, 2]
    await claims.close()


async def test_a_robot_whose_claims_were_ended_is_admitted_anew_or_refused() -> None:
    store = Grants()
    claims = Claims(store, Registry(admitted(1), admitted(2), DRAINING), Limits(), Lanes(store, Limits()).put)
    await asyncio.wait_for(claims.claim("r", "p", 1, 0), 10)
    store.ended = 2  # put aside, and back
    assert (await asyncio.wait_for(claims.claim("r", "q", 1, 0), 10)).grants == []
    assert [claim.admission for claim in store.claims] == [1, 1, 2]
    store.ended = 3
    with pytest.raises(Conflict, match="draining"):
        await asyncio.wait_for(claims.claim("r", "s", 1, 0), 10)
    await claims.close()


async def test_a_registry_that_admits_whom_the_store_does_not_is_not_asked_for_ever() -> None:
    """Restored from an older backup, it does not know what was ended since."""
    store = Grants()
    store.ended = 9
    claims = Claims(store, Registry(admitted(1), admitted(1)), Limits(), Lanes(store, Limits()).put)
    with pytest.raises(Conflict):
        await asyncio.wait_for(claims.claim("r", "p", 1, 0), 10)
    await claims.close()


async def test_a_robot_that_registers_is_admitted_as_what_it_is_now() -> None:
    store = Grants()
    claims = Claims(store, Registry(admitted(1), admitted(2)), Limits(), Lanes(store, Limits()).put)
    await asyncio.wait_for(claims.claim("r", "p", 1, 0), 10)
    claims.forget_admission("r")
    await asyncio.wait_for(claims.claim("r", "q", 1, 0), 10)
    assert [claim.admission for claim in store.claims] == [1, 2]
    await claims.close()


async def test_what_the_registry_said_before_a_robot_was_another_is_not_kept() -> None:
    """The answer to a claim comes after the robot registered anew."""
    store, registry = Grants(), Held(admitted(1), admitted(2))
    claims = Claims(store, registry, Limits(), Lanes(store, Limits()).put)
    first = claims.claim("r", "p", 1, 0)
    await registry.asked.wait()
    claims.forget_admission("r")
    registry.go.set()
    await asyncio.wait_for(first, 10)
    await asyncio.wait_for(claims.claim("r", "q", 1, 0), 10)
    assert [claim.admission for claim in store.claims] == [1, 2]
    await claims.close()


class Registering(Registry):
    """Admits at once, registers when it may; both begin in the order in which they come."""

    def __init__(self, *replies: Any) -> None:
        super().__init__(*replies)
        self.go = asyncio.Event()

    async def execute(self, commands: Sequence[RegistryCommand]) -> list[Any]:
        if any(isinstance(command, RegisterRobot) for command in commands):
            await self.go.wait()
            return [None for _ in commands]
        return await super().execute(commands)

    async def pulse(self) -> str:
        return ""


async def test_a_robot_that_claims_while_it_registers_is_admitted_anew_once_that_is_acknowledged() -> None:
    store, registry = Grants(), Registering(admitted(1), admitted(2))
    fleet = FleetClient(Rooms(store, registry, {}), Limits())  # type: ignore[arg-type]
    registered = fleet.administer(RegisterRobot(RobotSpec(robot_id="r")))
    await asyncio.wait_for(fleet.claim("r", "p", 1, 0), 10)
    registry.go.set()
    await asyncio.wait_for(registered, 10)
    await asyncio.wait_for(fleet.claim("r", "q", 1, 0), 10)
    assert [claim.admission for claim in store.claims] == [1, 2]
    await fleet.close()
