"""Who gets which job: urgent and old jobs first, to the robot that has waited longest and fits."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

import msgspec

from fleet.limits import MS
from fleet.messages import Claim

Needs = tuple[str | None, frozenset[str]]
Skills = tuple[str, frozenset[str]]
Rank = tuple[int, int, int]


def rank(due_wall_ns: int, priority: int, submission: int, aging_ms: int | None) -> Rank:
    """Smallest first. Aging makes one level of priority worth `aging_ms` of waiting, which keeps the
    order of two jobs fixed for ever; `None` is strict priority."""
    if aging_ms is None:
        return (priority, due_wall_ns, submission)
    return (due_wall_ns + priority * aging_ms * MS, 0, submission)


@lru_cache(maxsize=65_536)
def fits(needs: Needs, skills: Skills) -> bool:
    environment, required = needs
    return (environment is None or environment == skills[0]) and required <= skills[1]


def _wider(needs: Needs, than: Needs) -> bool:
    return needs[0] in (None, than[0]) and needs[1] <= than[1]


class PendingQueue:
    """Due jobs in rank order, one heap per set of needs. Removal is lazy: `live` says who is still in."""

    def __init__(self) -> None:
        self._heaps: dict[Needs, list[tuple[Rank, str]]] = {}
        self._live: dict[str, Rank] = {}
        self._entries = 0

    def __len__(self) -> int:
        return len(self._live)

    def push(self, job_id: str, needs: Needs, order: Rank) -> None:
        self._live[job_id] = order
        self._entries += 1
        heapq.heappush(self._heaps.setdefault(needs, []), (order, job_id))

    def discard(self, job_id: str) -> None:
        self._live.pop(job_id, None)
        if self._entries > 1_024 + 2 * len(self._live):
            self._sweep()

    def _sweep(self) -> None:
        """Most entries are of jobs that are gone, below a head that nobody takes."""
        for needs, heap in list(self._heaps.items()):
            live = [entry for entry in heap if self._live.get(entry[1]) == entry[0]]
            heapq.heapify(live)
            self._heaps[needs] = live
            if not live:
                del self._heaps[needs]
        self._entries = len(self._live)

    def head(self, needs: Needs) -> tuple[Rank, str] | None:
        heap = self._heaps.get(needs)
        while heap:
            if self._live.get(heap[0][1]) == heap[0][0]:
                return heap[0]
            heapq.heappop(heap)
            self._entries -= 1
        self._heaps.pop(needs, None)
        return None

    def needs(self) -> list[Needs]:
        return list(self._heaps)

    def outranking(self, job_id: str, needs: Needs, most: int) -> int:
        """How many jobs go before this one that every robot fit for it may take; counted up to `most`."""
        own = self._live.get(job_id)
        count = 0
        for others, heap in self._heaps.items() if own else ():
            if own and _wider(others, needs):
                count += sum(1 for _ in islice(self._before(heap, own), most - count))
        return count

    def _before(self, heap: list[tuple[Rank, str]], order: Rank) -> Iterator[str]:
        """No child comes before its parent: below one that does not come before, none does."""
        stack = [0]
        while stack:
            index = stack.pop()
            if index < len(heap) and heap[index][0] < order:
                rank, job_id = heap[index]
                stack += (2 * index + 1, 2 * index + 2)
                if self._live.get(job_id) == rank:
                    yield job_id


class Waiting(msgspec.Struct):
    claim: Claim
    since_ns: int
    until_ns: int


class WaitingClaims:
    """Parked claims, at most one per robot: longest waiting first, one line per set of skills."""

    def __init__(self) -> None:
        self._lines: dict[Skills, OrderedDict[str, Waiting]] = {}
        self._of: dict[str, Skills] = {}

    def __len__(self) -> int:
        return len(self._of)

    def park(self, waiting: Waiting) -> None:
        """A robot that waits already keeps its place, unless it has other skills now."""
        claim = waiting.claim
        skills = (claim.environment, frozenset(claim.capabilities))
        before = self.get(claim.robot_id)
        if before is not None and self._of[claim.robot_id] == skills:
            waiting.since_ns = before.since_ns
        else:
            self.remove(claim.robot_id)
        self._of[claim.robot_id] = skills
        self._lines.setdefault(skills, OrderedDict())[claim.robot_id] = waiting

    def get(self, robot_id: str) -> Waiting | None:
        skills = self._of.get(robot_id)
        return None if skills is None else self._lines[skills][robot_id]

    def remove(self, robot_id: str) -> Waiting | None:
        skills = self._of.pop(robot_id, None)
        if skills is None:
            return None
        line = self._lines[skills]
        waiting = line.pop(robot_id)
        if not line:
            del self._lines[skills]
        return waiting

    def all(self) -> list[Waiting]:
        return [waiting for line in self._lines.values() for waiting in line.values()]

    def longest_that_fits(self, needs: Needs) -> Waiting | None:
        heads = (next(iter(line.values())) for skills, line in self._lines.items() if fits(needs, skills))
        return min(heads, key=lambda waiting: waiting.since_ns, default=None)


def matches(pending: PendingQueue, claims: WaitingClaims) -> Iterator[tuple[str, Waiting]]:
    """Pairs in the order of dispatch. The caller must take the job out of `pending`, and the claim out
    of `claims` once it is full, before it asks for the next pair."""
    heads = [(head[0], head[1], needs) for needs in pending.needs() if (head := pending.head(needs))]
    heapq.heapify(heads)
    while heads and len(claims):
        _, job_id, needs = heapq.heappop(heads)
        waiting = claims.longest_that_fits(needs)
        if waiting is None:
            continue
        yield job_id, waiting
        if head := pending.head(needs):
            heapq.heappush(heads, (head[0], head[1], needs))
