"""The jobs of a scenario, each with the time when it is due and all that a server is told of it.

Whoever plays the scenario, over the network or in virtual time, meets the same jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from simulators.arrivals import arrival_times
from simulators.draws import choice_of, draw_from, stream
from simulators.scenario import ClosedArrivals, JobClass, Jobs, Segment

LEAST_PATIENCE_S = 1e-6  # a server wants more than nothing


class Planned(msgspec.Struct, frozen=True):
    """`number` counts the jobs of a run from 1."""

    number: int
    at_s: float
    body: dict[str, Any]


class Bodies:
    """Makes one job after the other, each with its length, so that it is the same job whoever does it."""

    def __init__(self, jobs: Jobs, seed: int) -> None:
        self._classes = jobs.classes
        self._names = list(jobs.classes)
        self._which = choice_of([each.weight for each in jobs.classes.values()], stream(seed, "classes"))
        self._draws = {
            name: draw_from(each.service, stream(seed, f"service {name}"))
            for name, each in jobs.classes.items()
        }
        self._patience = {
            name: draw_from(each.patience, stream(seed, f"patience {name}"))
            for name, each in jobs.classes.items()
            if each.patience is not None
        }
        self._number = 0

    def next(self, at_s: float) -> Planned:
        self._number += 1
        name = self._names[self._which()]
        patience = self._patience.get(name)
        patience_s = None if patience is None else max(patience(), LEAST_PATIENCE_S)
        body = _body(name, self._classes[name], self._draws[name](), patience_s, self._number)
        return Planned(self._number, at_s, body)


class Arrivals(Protocol):
    """What is due, from the beginning of the run."""

    def due(self, now_s: float) -> Iterator[Planned]: ...

    def ended(self, number: int, now_s: float) -> None:
        """The job of this number is over."""

    @property
    def next_s(self) -> float | None:
        """When the next is due, as far as is known."""

    @property
    def over(self) -> bool:
        """Nothing more will be due."""


class OpenArrivals:
    """An open model: what the server does changes nothing."""

    def __init__(self, jobs: Jobs, load: list[Segment], seed: int, folder: Path) -> None:
        self._bodies = Bodies(jobs, seed)
        self._times = arrival_times(jobs.arrivals, load, stream(seed, "arrivals"), folder)
        self._next = next(self._times, None)

    def due(self, now_s: float) -> Iterator[Planned]:
        while self._next is not None and self._next[0] <= now_s:
            at_s, count = self._next
            for _ in range(count):
                yield self._bodies.next(at_s)
            self._next = next(self._times, None)

    def ended(self, number: int, now_s: float) -> None: ...

    @property
    def next_s(self) -> float | None:
        return self._next[0] if self._next else None

    @property
    def over(self) -> bool:
        return self._next is None


class ClosedUsers:
    """A closed model: each user thinks, submits a job, waits for its end, and thinks again."""

    def __init__(self, jobs: Jobs, arrivals: ClosedArrivals, ends_s: float, seed: int) -> None:
        self._bodies = Bodies(jobs, seed)
        self._think = draw_from(arrivals.think, stream(seed, "think"))
        self._ends_s = ends_s
        self._thinking = [self._think() for _ in range(arrivals.users)]
        heapq.heapify(self._thinking)
        self._waiting: set[int] = set()  # numbers of the jobs that users wait for

    def due(self, now_s: float) -> Iterator[Planned]:
        while self._thinking and self._thinking[0] <= now_s:
            at_s = heapq.heappop(self._thinking)
            if at_s < self._ends_s:
                planned = self._bodies.next(at_s)
                self._waiting.add(planned.number)
                yield planned

    def ended(self, number: int, now_s: float) -> None:
        if number in self._waiting:
            self._waiting.discard(number)
            heapq.heappush(self._thinking, now_s + self._think())

    @property
    def next_s(self) -> float | None:
        return self._thinking[0] if self._thinking and self._thinking[0] < self._ends_s else None

    @property
    def over(self) -> bool:
        return not self._waiting and (not self._thinking or self._thinking[0] >= self._ends_s)


def _body(
    name: str, each: JobClass, service_s: float, patience_s: float | None, number: int
) -> dict[str, Any]:
    payload: dict[str, Any] = {"number": number, "service_s": round(service_s, 6)}
    if each.progress_per_job:
        payload["progress_steps"] = each.progress_per_job
    body: dict[str, Any] = {
        "name": name,
        "payload": payload,
        "priority": each.priority,
        "max_attempts": each.max_attempts,
        "required_capabilities": each.required_capabilities,
    }
    given = {"environment": each.environment, "timeout_s": each.timeout, "pending_timeout_s": patience_s}
    return body | {name: value for name, value in given.items() if value is not None}


def arrivals_of(jobs: Jobs, load: list[Segment], seed: int, folder: Path) -> Arrivals:
    """`folder` is that of the scenario. Raises Misuse for a trace that cannot be read."""
    if isinstance(jobs.arrivals, ClosedArrivals):
        return ClosedUsers(jobs, jobs.arrivals, load[-1].ends_s, seed)
    return OpenArrivals(jobs, load, seed, folder)
