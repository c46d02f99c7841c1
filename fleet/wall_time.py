"""Wall time on the wire: RFC 3339, UTC, milliseconds, `Z`."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from msgspec import Meta

from fleet.errors import PeerFault

WallTime = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
NS_PER_DAY = 86_400 * 1_000_000_000
FIRST_DAY = -719_162  # 0001-01-01, before which Python has no years
LAST_DAY = 2_932_896  # 9999-12-31, after which RFC 3339 has no years


def rfc3339(wall_ns: int) -> str:
    """`wall_ns`: nanoseconds since 1970 UTC -> "2025-01-15T10:30:00.000Z"."""
    return _written(wall_ns // 1_000_000)


@lru_cache(maxsize=1_024)  # a batch of facts has one time
def _written(wall_ms: int) -> str:
    seconds, rest_ms = divmod(wall_ms, 1_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}.{rest_ms:03d}Z"


@lru_cache(maxsize=1_024)
def wall_ns_of(text: str) -> int:
    """The inverse, for times that a client names. Raises PeerFault unless `text` has an offset."""
    try:
        moment = datetime.fromisoformat(text.upper())  # RFC 3339 admits a small t and z
    except ValueError as error:
        raise PeerFault(f"not an RFC 3339 time: {text[:40]!r}", "bad_time") from error
    if moment.tzinfo is None:
        raise PeerFault(f"the time {text[:40]!r} needs an offset, such as a final Z", "bad_time")
    # Through an integer: a float of seconds since 1970 is off by hundreds of nanoseconds.
    since = moment - datetime.fromtimestamp(0, UTC)
    if not FIRST_DAY <= since.days <= LAST_DAY:
        raise PeerFault(f"the time {text[:40]!r} is not within the years 1 to 9999 in UTC", "bad_time")
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


def day_of(wall_ns: int) -> int:
    """Number of the UTC day, for the `*_today` counters."""
    return wall_ns // NS_PER_DAY
