"""Token buckets, one for each caller, in a table with a bound."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable

EARLY_S = 1e-6  # who comes so much too early is in time: clocks are no finer


class Rates:
    """Each key may take `per_s` a second on average, and `burst` at once after a pause.

    A bucket is one number, the time at which it is full again (GCRA, ITU-T I.371). A full bucket needs no
    entry, so that forgetting a key only ever gives it its burst back. Bound: past `max_keys` the key that was
    silent longest is forgotten.
    """

    def __init__(self, per_s: float, burst: float, max_keys: int) -> None:
        if per_s <= 0 or burst < 1 or max_keys < 1:
            raise ValueError("per_s must be above 0, burst and max_keys at least 1")
        self._cost_s = 1 / per_s
        self._depth_s = burst / per_s
        self._max_keys = max_keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable, now: float) -> float:
        """0.0 if `key` may go on at `now` (seconds, monotonic), else the seconds it has to wait; what is
        refused costs nothing."""
        full_at = max(self._full_at.pop(key, now), now)
        wait_s = full_at + self._cost_s - self._depth_s - now
        if wait_s <= EARLY_S:
            full_at, wait_s = full_at + self._cost_s, 0.0
        self._full_at[key] = full_at
        if len(self._full_at) > self._max_keys:
            self._full_at.popitem(last=False)
        return wait_s


def network_of(address: str) -> str:
    """The key of a peer: its address, but the /64 of IPv6, all of which one client may use. What is no
    address (the path of a Unix socket) is itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
