"""TCP connections of this process, whatever they turn into: per address and in all."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable

from api.rates import network_of

SPARE_DESCRIPTORS = 64  # for what a process opens besides
SLACK = 16

Peer = tuple[str, int] | None


class ConnectionTable:
    """Counts what a peer holds before anything is known of it, so that neither silence nor refusals can take
    all descriptors. A tenth above the bounds of sockets is left for those that are told why they are refused.
    `exempt` says of an address that it is not bounded; its connections count in all the same."""

    def __init__(self, most: float, most_per_address: float, exempt: Callable[[str], bool]) -> None:
        self._most = most
        self._most_per_address = most_per_address * 1.1 + SLACK
        self._exempt = exempt
        self._open = 0
        self._of_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._open

    def enter(self, peer: Peer) -> bool:
        """False, and nothing is counted, if it must be closed at once."""
        address = network_of(peer[0]) if peer else ""
        bounded = bool(address) and not self._exempt(peer[0] if peer else "")
        if self._open >= self._most or (bounded and self._of_address[address] >= self._most_per_address):
            return False
        self._open += 1
        self._of_address[address] += 1
        return True

    def leave(self, peer: Peer) -> None:
        address = network_of(peer[0]) if peer else ""
        self._open -= 1
        self._of_address[address] -= 1
        if self._of_address[address] <= 0:
            del self._of_address[address]


NO_TABLE = ConnectionTable(float("inf"), float("inf"), lambda address: True)


def descriptors() -> int:
    """How many files this process may open: all that the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


def spare_descriptors() -> int:
    return max(1, descriptors() - SPARE_DESCRIPTORS)
