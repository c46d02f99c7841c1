"""The jobs of a scenario, each with the time when it is due and all that a server is told of it.

Whoever plays the scenario, over the network or in virtual time, meets the same jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from simulators.distributions import LONGEST_S
from simulators.job_draws import JobDraws, Thinking, open_model
from simulators.keyed import NANO
from simulators.scenario import ClosedArrivals, JobClass, Jobs, Segment

AT_ONCE = 256  # are drawn


class Planned(msgspec.Struct, frozen=True):
    """`number` counts the jobs of a run from 1."""

    number: int
    at_s: float
    body: dict[str, Any]


class Bodies:
    """Makes one job after the other, each with its length, so that it is the same job whoever does it."""

    def __init__(self, jobs: Jobs, draws: JobDraws) -> None:
        self._classes = list(jobs.classes.items())
        self._draws = draws
        self._number = 0
        # The first time it takes a second, to load what is compiled: not when the first job is due.
        self._drawn = self._several()

    def next(self, at_s: float) -> Planned:
        drawn = next(self._drawn, None)
        if drawn is None:
            self._drawn = self._several()
            drawn = next(self._drawn)
        self._number += 1
        klass, work_ns, patience_ns = drawn
        body = _body(*self._classes[klass], work_ns, patience_ns, self._number)
        return Planned(self._number, at_s, body)

    def _several(self) -> Iterator[tuple[int, int, int]]:
        several = self._draws.of(self._number + 1, AT_ONCE)
        return zip(*(column.tolist() for column in several), strict=True)


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
        draws, times = open_model(jobs, load, seed, folder)
        self._bodies = Bodies(jobs, draws)
        self._times = (at_ns / NANO for block in times for at_ns in block.tolist())
        self._next = next(self._times, None)

    def due(self, now_s: float) -> Iterator[Planned]:
        while self._next is not None and self._next <= now_s:
            yield self._bodies.next(self._next)
            self._next = next(self._times, None)

    def ended(self, number: int, now_s: float) -> None: ...

    @property
    def next_s(self) -> float | None:
        return self._next

    @property
    def over(self) -> bool:
        return self._next is None


class ClosedUsers:
    """A closed model: each user thinks, submits a job, waits for its end, and thinks again."""

    def __init__(self, jobs: Jobs, arrivals: ClosedArrivals, ends_s: float, seed: int) -> None:
        self._bodies = Bodies(jobs, JobDraws(jobs, seed))
        self._think = Thinking(arrivals.think, seed)
        self._ends_s = ends_s
        self._thinking = [self._think.before_the_first(user) / NANO for user in range(arrivals.users)]
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
            heapq.heappush(self._thinking, now_s + self._think.after(number) / NANO)

    @property
    def next_s(self) -> float | None:
        return self._thinking[0] if self._thinking and self._thinking[0] < self._ends_s else None

    @property
    def over(self) -> bool:
        return not self._waiting and (not self._thinking or self._thinking[0] >= self._ends_s)


def _body(name: str, each: JobClass, work_ns: int, patience_ns: int, number: int) -> dict[str, Any]:
    payload: dict[str, Any] = {"number": number, "service_s": work_ns / NANO}
    if each.progress_per_job:
        payload["progress_steps"] = each.progress_per_job
    body: dict[str, Any] = {
        "name": name,
        "payload": payload,
        "priority": each.priority,
        "max_attempts": each.max_attempts,
        "required_capabilities": each.required_capabilities,
    }
    patience_s = None if each.patience is None else min(patience_ns / NANO, LONGEST_S)
    given = {"environment": each.environment, "timeout_s": each.timeout, "pending_timeout_s": patience_s}
    return body | {name: value for name, value in given.items() if value is not None}


def arrivals_of(jobs: Jobs, load: list[Segment], seed: int, folder: Path) -> Arrivals:
    """`folder` is that of the scenario. Raises Misuse for a trace that cannot be read."""
    if isinstance(jobs.arrivals, ClosedArrivals):
        return ClosedUsers(jobs, jobs.arrivals, load[-1].ends_s, seed)
    return OpenArrivals(jobs, load, seed, folder)
