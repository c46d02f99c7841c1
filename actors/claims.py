"""A door's claims: admitted, sent, and answered at once or by the one long poll on its outbox."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from actors.admissions import Admissions, RegistrySide
from fleet.errors import Conflict, FleetError, Unavailable
from fleet.limits import Limits
from fleet.messages import (
    LATE_ADMISSION,
    Admitted,
    Answer,
    Claim,
    Command,
    GiveBack,
    Outbox,
    Parked,
    Withdraw,
)

log = logging.getLogger("fleetcast.claims")

GRACE_S = 10.0
PAUSE_S = 0.2


class JobStoreSide(Protocol):
    async def execute(self, commands: Sequence[Command]) -> list[Any]: ...

    async def outbox(self, door: str, epoch: int, cursor: int, wait_ms: int) -> Outbox: ...


class _Open(msgspec.Struct):
    """A claim without an answer. One that was withdrawn stays until its time is over: what is granted to it
    after all must go back."""

    claim: Claim
    future: asyncio.Future[Answer]
    until: float
    asked_again: bool = False


class Claims:
    """Bound: each robot's socket or request has a few; each ends by itself after its `wait_ms`. `tell` sends
    a command to the job store, a robot's commands in order."""

    def __init__(
        self,
        job_store: JobStoreSide,
        registry: RegistrySide,
        limits: Limits,
        tell: Callable[[Command], asyncio.Future[Any]],
    ) -> None:
        self._job_store = job_store
        self._admissions = Admissions(registry, limits)
        self._limits = limits
        self._tell = tell
        self._door = secrets.token_hex(8)
        self._calls = itertools.count(1)
        self._open: dict[tuple[str, str], _Open] = {}
        self._poller: asyncio.Task[None] | None = None
        self.on_cancel: Callable[[str, str], None] = lambda robot_id, job_id: None

    def claim(self, robot_id: str, request_id: str, limit: int, wait_ms: int) -> asyncio.Future[Answer]:
        """The registry admits, the job store grants: at once, or within `wait_ms`. Said again, the newest
        gets the answer and the older an empty one."""
        loop = asyncio.get_running_loop()
        self._poller = self._poller or loop.create_task(self._poll())
        wait_ms = min(wait_ms, self._limits.max_claim_wait_ms)
        claim = Claim(self._door, robot_id, request_id, limit, wait_ms, [], "", 0, next(self._calls))
        future: asyncio.Future[Answer] = loop.create_future()
        older = self._open.get((robot_id, request_id))
        if older is not None and not older.future.done():
            older.future.set_result(Answer(robot_id, request_id, []))
        # The fleet answers in time; should it have restarted and forgotten, the door answers itself.
        entry = _Open(claim, future, loop.time() + wait_ms / 1_000 + GRACE_S)
        self._open[robot_id, request_id] = entry
        kept = self._admissions.kept(robot_id)
        if kept is not None:
            self._send(entry, kept)
        else:
            self._ask(entry)
        return future

    def withdraw(self, robot_id: str, request_id: str, future: asyncio.Future[Answer]) -> None:
        """Nobody waits for this answer any more; what it grants goes back to the queue."""
        future.cancel()
        entry = self._open.get((robot_id, request_id))
        if entry is not None and entry.future is future:
            self._tell(Withdraw(self._door, robot_id, entry.claim.call))

    def forget_admission(self, robot_id: str) -> None:
        """The robot may be another now: the registry is asked for its next claim."""
        self._admissions.forget(robot_id)

    async def close(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        await self._admissions.close()

    # -- there

    def _ask(self, entry: _Open) -> None:
        self._admissions.ask(entry.claim.robot_id).add_done_callback(partial(self._on_admitted, entry))

    def _on_admitted(self, entry: _Open, admitted: asyncio.Future[Admitted]) -> None:
        if error := admitted.exception():
            self._fail(entry, error)
        elif entry.future.done():
            self._forget(entry)
        else:
            self._send(entry, admitted.result())

    def _send(self, entry: _Open, admitted: Admitted) -> None:
        entry.claim = _admitted(entry.claim, admitted)
        self._tell(entry.claim).add_done_callback(partial(self._on_reply, entry))

    def _on_reply(self, entry: _Open, told: asyncio.Future[Any]) -> None:
        if error := told.exception():
            self._refused(entry, error)
        elif isinstance(reply := told.result(), Parked):
            if entry.future.cancelled():  # during the call: its withdrawal may have come too early
                self._tell(Withdraw(self._door, entry.claim.robot_id, entry.claim.call))
        else:
            self._forget(entry)
            self._settle(entry, reply)

    def _refused(self, entry: _Open, error: BaseException) -> None:
        if isinstance(error, Conflict) and error.code == LATE_ADMISSION and not entry.asked_again:
            entry.asked_again = True
            self._admissions.forget(entry.claim.robot_id)
            self._ask(entry)
        else:
            self._fail(entry, error)

    def _fail(self, entry: _Open, error: BaseException) -> None:
        """What becomes of a claim without an answer nobody knows: what it is granted later goes back."""
        if not isinstance(error, Unavailable):
            self._forget(entry)
        if not entry.future.done():
            entry.future.set_exception(error)
            entry.future.exception()  # marks it as seen: a caller that left is no error

    def _forget(self, entry: _Open) -> None:
        key = (entry.claim.robot_id, entry.claim.request_id)
        if self._open.get(key) is entry:
            del self._open[key]

    # -- and back

    async def _poll(self) -> None:
        epoch = cursor = 0
        while True:
            self._end_forgotten(asyncio.get_running_loop().time())
            try:
                page = await self._job_store.outbox(self._door, epoch, cursor, self._limits.long_poll_ms)
                if page.epoch != epoch and epoch:
                    await self._claim_again()
            except Exception as error:
                if not isinstance(error, FleetError):
                    log.exception("the poll for grants failed; the next goes on")
                await asyncio.sleep(PAUSE_S)
                continue
            epoch, cursor = page.epoch, page.cursor
            for answer in page.answers:
                self._resolve(answer)
            for robot_id, job_id in page.cancels:
                self.on_cancel(robot_id, job_id)

    async def _claim_again(self) -> None:
        """The store lost sight of this door and dropped its claims: those that still wait go in again,
        under their request ids, so that what was granted meanwhile is not granted twice, and admitted anew:
        a store that restarted does not know whose claims were ended."""
        claims = [entry.claim for entry in self._open.values() if not entry.future.done()]
        for start in range(0, len(claims), self._limits.max_batch):
            batch = claims[start : start + self._limits.max_batch]
            admissions = await self._admissions.ask_all([claim.robot_id for claim in batch])
            pairs = list(zip(batch, admissions, strict=True))
            for claim, refused in pairs:
                if not isinstance(refused, Admitted):
                    self._resolve(Answer(claim.robot_id, claim.request_id, []))
            full = [_admitted(claim, admitted) for claim, admitted in pairs if isinstance(admitted, Admitted)]
            for claim, reply in zip(full, await self._job_store.execute(full) if full else [], strict=True):
                if isinstance(reply, Answer):
                    self._resolve(reply)
                elif not isinstance(reply, Parked):
                    self._resolve(Answer(claim.robot_id, claim.request_id, []))

    def _resolve(self, answer: Answer) -> None:
        entry = self._open.pop((answer.robot_id, answer.request_id), None)
        if entry is not None:  # else the same answer came another way too
            self._settle(entry, answer)

    def _settle(self, entry: _Open, answer: Answer) -> None:
        if not entry.future.done():
            entry.future.set_result(answer)
        elif entry.future.cancelled() or entry.future.exception():
            self._give_back(answer, entry.claim.call)  # its robot left, or was told that nobody answers

    def _give_back(self, answer: Answer, call: int) -> None:
        for grant in answer.grants:
            self._tell(GiveBack(self._door, answer.robot_id, call, grant.job.job_id, grant.token))

    def _end_forgotten(self, now: float) -> None:
        for entry in [entry for entry in self._open.values() if entry.until < now]:
            self._resolve(Answer(entry.claim.robot_id, entry.claim.request_id, []))


def _admitted(claim: Claim, admitted: Admitted) -> Claim:
    return msgspec.structs.replace(
        claim,
        capabilities=admitted.capabilities,
        environment=admitted.environment,
        max_concurrent_jobs=admitted.max_concurrent_jobs,
        lease_ms=admitted.lease_ms,
        admission=admitted.admission,
    )
