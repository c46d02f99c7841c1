"""An actor that looks like the plain class behind it. The only file that calls one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import ray
import ray.exceptions

from actors import failpoints
from actors.batching import ASKED_AT
from actors.wire import Lost, Wire, connect
from fleet.errors import FleetError, Overloaded, Unavailable

log = logging.getLogger("fleetcast.ray_room")

RETRY_FOR_S = 10.0  # an actor is back by then
HURRY_S = 1.0  # for calls of who waited that long already: callers must not queue up behind each other
LONG_POLLS = frozenset({"read", "outbox"})  # which are to take longer than that, and nobody queues up behind
OFTEN = frozenset({"execute", "heartbeats", "publish", *LONG_POLLS})  # by wire, where there is one


class RayRoom:
    """Every method there is idempotent, so a call whose answer was lost, or is late, is made again, for
    `RETRY_FOR_S` in all; then Unavailable."""

    def __init__(self, name: str, namespace: str) -> None:
        self._name = name
        self._namespace = namespace
        self._handle: Any = None
        self._wire: Wire | None = None
        self._wired = False  # this handle was asked for its wire
        self._loop: asyncio.AbstractEventLoop | None = None  # where the wire is
        self._connecting = asyncio.Lock()
        self._closed = False
        self._losses = failpoints.losses()
        self._answered_at = 0.0
        self._silent_since: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # By name: a handle among an actor's arguments lives in the object store of the driver, and
        # an actor that restarts after its driver is gone could not be made again.
        return RayRoom, (self._name, self._namespace)

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args: self._ask(method, args)

    def _actor(self) -> Any:
        """Raises ValueError while no actor has the name."""
        if self._handle is None:
            self._handle = ray.get_actor(self._name, self._namespace)
        return self._handle

    async def _ask(self, method: str, args: tuple[Any, ...]) -> Any:
        """An actor that was stopped, not killed, gives no answer at all: hence a time for each attempt."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        until, pause, lost = began + self._patience_s(method, began), 0.05, False
        while True:
            try:
                async with asyncio.timeout_at(until):
                    answer = await self._call(method, args)
                self._note_answer(loop.time())
                return answer
            except FleetError as error:
                self._note_answer(loop.time())
                raise _of_all_attempts(error, lost) from None
            except ray.exceptions.RayTaskError as error:
                self._note_answer(loop.time())
                raise _of_all_attempts(_ours(error), lost) from None
            except ray.exceptions.PendingCallsLimitExceeded:
                raise _of_all_attempts(
                    Overloaded("too many calls wait for the fleet", "", 1.0), lost
                ) from None
            except (ray.exceptions.RayError, Lost, ValueError, TimeoutError) as error:
                lost = True
                self._note_silence(error, began)
                if self._by_wire(method):
                    self._hang_up()
                if loop.time() + pause > until:
                    raise Unavailable(f"no answer from the fleet ({type(error).__name__})", "", 1.0) from None
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 2)

    async def _call(self, method: str, args: tuple[Any, ...]) -> Any:
        if self._by_wire(method):
            wire = self._wire or await self._connect()
            if wire is not None:
                return await wire.call(method, args, self._losses.next())
        return await getattr(self._actor(), method).remote(*args)

    def _by_wire(self, method: str) -> bool:
        return method in OFTEN and failpoints.wires and not self._closed and self._at_home()

    def _at_home(self) -> bool:
        """A wire belongs to one event loop; calls from another go by Ray, until the first is over."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop.is_closed():
            self._loop, self._connecting = loop, asyncio.Lock()
            self._wire, self._wired = None, False
        return loop is self._loop

    async def _connect(self) -> Wire | None:
        """Asks the actor once in its life: what cannot be reached now is on another node."""
        async with self._connecting:
            if not self._wired:
                asked = getattr(self._actor(), "address", None)
                address = await asked.remote() if asked is not None else ""
                wire = await connect(address)
                if wire is not None and self._closed:
                    wire.close()  # nobody else would
                    wire = None
                self._wire, self._wired = wire, True
            return self._wire

    def close_wire(self) -> None:
        """Of a caller that goes: what it says from now on goes by Ray."""
        self._closed = True
        self._hang_up()

    def _hang_up(self) -> None:
        """The next call asks Ray where the actor is."""
        if self._wire is not None:
            self._wire.close()
        self._wire, self._wired = None, False

    def _patience_s(self, method: str, now: float) -> float:
        """Who waited behind a call that nobody answered, or was answered late, does not wait as long once
        more; nor does who asks for an actor that is long gone."""
        if method in LONG_POLLS:
            return RETRY_FOR_S
        if self._silent_since is not None and now - self._silent_since >= RETRY_FOR_S - HURRY_S:
            return HURRY_S
        return max(HURRY_S, RETRY_FOR_S - (now - (ASKED_AT.get() or now)))

    def _note_answer(self, now: float) -> None:
        self._answered_at, self._silent_since = now, None

    def _note_silence(self, error: Exception, began: float) -> None:
        if not isinstance(error, TimeoutError):
            self._handle = None
        if self._silent_since is None:
            self._silent_since = max(began, self._answered_at)


def _of_all_attempts(error: FleetError, lost: bool) -> FleetError:
    """A room that has too much to do refuses before it looks whether it did this already."""
    if lost and isinstance(error, Overloaded):
        return Unavailable(error.detail, "", error.retry_after_s)
    return error


def _ours(error: ray.exceptions.RayTaskError) -> FleetError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, FleetError):
        return cause
    log.error("an actor failed", exc_info=error)
    return Unavailable("the fleet failed on this request", "failed", 1.0)
