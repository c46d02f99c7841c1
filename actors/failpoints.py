"""Places where a test may have the process killed, as the power would be."""

from __future__ import annotations

import asyncio
import os
import signal

BEFORE_APPEND = "before-append"
AFTER_APPEND = "after-append"
AFTER_FSYNC = "after-fsync"
AFTER_REPLY = "after-reply"
IN_SNAPSHOT = "in-snapshot"
IN_MIGRATION = "in-migration"
ALL = (BEFORE_APPEND, AFTER_APPEND, AFTER_FSYNC, AFTER_REPLY, IN_SNAPSHOT, IN_MIGRATION)
REPLIES_LEAVE_S = 0.05

_armed = ""
_left = 0


def arm(text: str) -> None:
    """ "name:count" kills at the count-th pass; nothing is armed in production."""
    global _armed, _left
    _armed, _, count = text.partition(":")
    _left = int(count or 1)


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


async def hit_when_replies_left(name: str) -> None:
    """Those to whom the commit was promised have their answers, and nobody else has heard of it."""
    if name == _armed and armed(name):
        await asyncio.sleep(REPLIES_LEAVE_S)
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("_FLEETCAST_FAILPOINT", ""))
