"""How often who may ask over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import HTTPConnection

from api.auth import ROLES, Principal
from api.problems import TooMany
from api.rates import Rates, network_of
from api.settings import Settings

MAX_KEYS = 50_000


class Callers:
    """Of this process. A principal pays for each request; an address only for those whose token is missing
    or wrong, so that nobody can lock out neighbours who have one. The address is the peer's own; a header is
    believed from a trusted proxy only. Bound: 50,000 of each; beyond, who was silent longest starts anew."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._known = Rates(settings.requests_per_s, settings.requests_burst, MAX_KEYS)
        self._unknown = Rates(settings.failures_per_s, settings.failures_burst, MAX_KEYS)

    def admit(self, principal: Principal) -> None:
        """Raises TooMany."""
        if principal.level < ROLES["operator"] or self._settings.limit_operators:
            # Of a subject only its hash is kept: a token may make it long.
            self._take(self._known, hash((principal.robot_id, principal.subject)), "requests")

    def refuse(self, connection: HTTPConnection) -> None:
        """Who asks without a good token. Raises TooMany once it did so too often."""
        host = connection.client.host if connection.client else ""
        if self._settings.bounds(host):
            self._take(self._unknown, network_of(host), "requests without a good token")

    def _take(self, rates: Rates, key: object, what: str) -> None:
        wait_s = rates.take(key, self._clock())
        if wait_s:
            raise TooMany(f"too many {what}: try again in {wait_s:.2f} s", "too_many_requests", wait_s)
