"""Places where a test may have the process killed, as the power would be."""

from __future__ import annotations

import os
import signal

# "name:count" kills at the count-th pass; nothing is armed in production.
_armed, _, _count = os.environ.get("_FLEETCAST_FAILPOINT", "").partition(":")
_left = int(_count or 1)

BEFORE_APPEND = "before-append"
AFTER_APPEND = "after-append"
AFTER_FSYNC = "after-fsync"
AFTER_REPLY = "after-reply"
IN_SNAPSHOT = "in-snapshot"
IN_MIGRATION = "in-migration"
ALL = (BEFORE_APPEND, AFTER_APPEND, AFTER_FSYNC, AFTER_REPLY, IN_SNAPSHOT, IN_MIGRATION)


def armed(name: str) -> bool:
    """One more pass: is it the fatal one?"""
    global _left
    if name != _armed:
        return False
    _left -= 1
    return _left == 0


def hit(name: str) -> None:
    if name == _armed and armed(name):
        os.kill(os.getpid(), signal.SIGKILL)
