"""Events within one process: who subscribes hears what is published here, and what the fleet says.

Owns      subscriptions, each with a bounded line of events before its handler
Hears     subscribe, publish; the fleet's feeds, while it is attached and somebody subscribes
Says      MonitoringEvents, to each handler in order
Survives  a handler's error; a slow handler, whose oldest events go once 10,000 wait
Never     lets one handler hold up another, or whoever publishes
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Protocol

import msgspec

from fleet.events import FEED_OF, MonitoringEvent, MonitoringEventType
from fleet.feed import Page

log = logging.getLogger("fleetcast.event_bus")

MAX_WAITING = 10_000
READ_MS = 2_000
PAUSE_S = 0.5

Handler = Callable[[MonitoringEvent], Awaitable[None] | None]


class Reads(Protocol):
    async def read(self, feed: str, epoch: str, offset: int, wait_ms: int) -> Page: ...


@cache
def background_loop() -> asyncio.AbstractEventLoop:
    """One event loop of our own per process, in a daemon thread: a caller may have none, or a new one for
    every call."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="fleetcast", daemon=True).start()
    return loop


class _Subscription:
    """Runs its handler on one loop, an event after the other. `offer` may be called from any thread."""

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self.handler = handler
        self.missed = 0
        self._loop = loop
        self._line: deque[MonitoringEvent] = deque()
        self._lock = threading.Lock()
        self._running = False
        self._task: asyncio.Task[None] | None = None

    def offer(self, event: MonitoringEvent) -> None:
        with self._lock:
            if len(self._line) >= MAX_WAITING:
                self._line.popleft()
                self.missed += 1
            self._line.append(event)
            if self._running:
                return
            self._running = True
        try:
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError:
            log.warning("the event loop of %s is closed; it hears no more", self.handler)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._run())

    def _next(self) -> MonitoringEvent | None:
        with self._lock:
            self._running = bool(self._line)
            return self._line.popleft() if self._line else None

    async def _run(self) -> None:
        while (event := self._next()) is not None:
            try:
                answer = self.handler(event)
                if inspect.isawaitable(answer):
                    await answer
            except Exception:
                log.exception("a handler of %s failed", event.type)


class EventBus:
    """Methods may be called from any thread. Handlers, plain or async, run on the event loop that was
    running where they subscribed; where there was none, on one of our own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: dict[MonitoringEventType, list[_Subscription]] = {}
        self._fleet: Reads | None = None
        self._followers: dict[MonitoringEventType, Any] = {}

    def subscribe(self, kind: MonitoringEventType, handler: Handler) -> Callable[[], None]:
        """From now on `handler` gets every event of this kind. Returns what ends it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = background_loop()
        subscription = _Subscription(handler, loop)
        with self._lock:
            self._subscriptions.setdefault(kind, []).append(subscription)
            self._follow_what_is_wanted()
        return lambda: self._end(kind, subscription)

    def publish(self, event: MonitoringEvent) -> None:
        """To the handlers of this process. Returns at once: they run on loops of theirs."""
        with self._lock:
            subscriptions = tuple(self._subscriptions.get(event.type, ()))
        for subscription in subscriptions:
            subscription.offer(event)

    def attach(self, fleet: Reads) -> None:
        """Hear the fleet too; its events have the source "fleet". `fleet` is read on our own loop."""
        with self._lock:
            self._fleet = fleet
            self._follow_what_is_wanted()

    def detach(self) -> None:
        with self._lock:
            self._fleet = None
            self._follow_what_is_wanted()

    def _end(self, kind: MonitoringEventType, subscription: _Subscription) -> None:
        with self._lock:
            subscriptions = self._subscriptions.get(kind, [])
            if subscription in subscriptions:
                subscriptions.remove(subscription)
            self._follow_what_is_wanted()

    def _follow_what_is_wanted(self) -> None:
        wanted = {kind for kind, said in self._subscriptions.items() if said} if self._fleet else set()
        for kind in set(self._followers) - wanted:
            self._followers.pop(kind).cancel()
        for kind in wanted - set(self._followers):
            assert self._fleet is not None
            run = self._follow(kind, self._fleet)
            self._followers[kind] = asyncio.run_coroutine_threadsafe(run, background_loop())

    async def _follow(self, kind: MonitoringEventType, fleet: Reads) -> None:
        epoch, offset = "", 0
        while True:
            try:
                page = await fleet.read(FEED_OF[kind], epoch, offset, READ_MS)
            except Exception as error:
                log.warning("%s is not heard for now: %s", FEED_OF[kind], error)
                await asyncio.sleep(PAUSE_S)
                continue
            if not page.recovered:
                log.warning("events of %s were lost", FEED_OF[kind])
            epoch, offset = page.epoch, page.offset
            for event in page.events:
                payload = msgspec.json.decode(event)
                self.publish(MonitoringEvent(kind, payload, payload["timestamp"], "fleet"))


event_bus = EventBus()
