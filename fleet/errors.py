"""What can go wrong, by whose fault it is. `code` is for programs, `detail` for people."""

from __future__ import annotations

from typing import Any


class FleetError(Exception):
    """The root. Subclasses say whose fault it is; a shell maps each to its own words once."""

    def __init__(self, detail: str, code: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).default_code
        self.retry_after_s = retry_after_s

    default_code = "error"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.detail, self.code, self.retry_after_s)


class Misuse(FleetError):
    """Our caller asked for something that makes no sense: a bug or a bad setting on their side."""

    default_code = "misuse"


class PeerFault(FleetError):
    """A robot or a watcher sent nonsense."""

    default_code = "bad_request"


class Forbidden(FleetError):
    """The caller is known and may not do this."""

    default_code = "forbidden"


class Conflict(FleetError):
    """The request is sound, the state does not admit it: stale token, wrong state, no free slot."""

    default_code = "conflict"


class NotFound(FleetError):
    """No such job, robot or key."""

    default_code = "not_found"


class Busy(FleetError):
    """A bound was reached; try again after `retry_after_s`."""

    default_code = "busy"


class Overloaded(Busy):
    """Too much waits already: refused before anything of it was looked at."""

    default_code = "overloaded"


class Full(Busy):
    """What holds the caller's own things holds as many as it may."""

    default_code = "full"


class Unavailable(FleetError):
    """A part of the fleet does not answer now; the same request may be sent again."""

    default_code = "unavailable"
