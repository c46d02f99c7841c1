"""Who holds how many sockets: what each door says of its own, and hears of all the others'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from operator import itemgetter

import msgspec

from fleet.limits import MS, Limits


class Occupancy(msgspec.Struct, frozen=True):
    """Open sockets of each principal and of each address."""

    principals: Mapping[str, int] = {}
    addresses: Mapping[str, int] = {}

    def largest(self, count: int) -> Occupancy:
        """At most `count` of each kind: those who hold most, for they are the nearest to a limit."""
        return Occupancy(_largest(self.principals, count), _largest(self.addresses, count))


class _Said(msgspec.Struct):
    at_ns: int
    held: Occupancy


class OccupancyTable:
    """What each door said last; one that is silent for `door_timeout_ms` is forgotten. Bound: of each door
    `max_named_per_door` principals and as many addresses. Who is not named holds no more there than any that
    is: at most the door's sockets divided by that number."""

    def __init__(self, limits: Limits) -> None:
        self._silence_ns = limits.door_timeout_ms * MS
        self._most = limits.max_named_per_door
        self._said: dict[str, _Said] = {}

    def exchange(self, door: str, held: Occupancy, now_ns: int) -> Occupancy:
        """Takes what `door` holds, all of it; returns the sum of what the other doors hold."""
        self._forget_silent(now_ns)
        self._said[door] = _Said(now_ns, held.largest(self._most))
        others = [said.held for name, said in self._said.items() if name != door]
        principals = _sum(other.principals for other in others)
        addresses = _sum(other.addresses for other in others)
        return Occupancy(principals, addresses)

    def _forget_silent(self, now_ns: int) -> None:
        for door in [d for d, said in self._said.items() if now_ns - said.at_ns > self._silence_ns]:
            del self._said[door]


def _sum(tables: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counts in tables:
        total.update(counts)
    return dict(total)


def _largest(counts: Mapping[str, int], count: int) -> dict[str, int]:
    if len(counts) <= count:
        return dict(counts)
    return dict(sorted(counts.items(), key=itemgetter(1), reverse=True)[:count])
