"""Places where a test may have the process killed, as the power would be, and calls by wire be lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import Literal

import msgspec

BEFORE_APPEND = "before-append"
AFTER_APPEND = "after-append"
AFTER_FSYNC = "after-fsync"
AFTER_REPLY = "after-reply"
IN_SNAPSHOT = "in-snapshot"
IN_MIGRATION = "in-migration"
ALL = (BEFORE_APPEND, AFTER_APPEND, AFTER_FSYNC, AFTER_REPLY, IN_SNAPSHOT, IN_MIGRATION)
REPLIES_LEAVE_S = 0.05

Loss = Literal["request", "response", "in_flight"]
LOSSES: tuple[Loss, ...] = ("request", "response", "in_flight")

_wires = os.environ.get("_FLEETCAST_WIRES", "{}")
wires = _wires != "off"  # "off": every call goes by Ray, whose own faults a test has then

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


class Losses(msgspec.Struct):
    """Of the calls of one caller by wire, with the names of `RAY_testing_rpc_failure`: at most `num_failures`
    (-1: no end), each with a probability in percent."""

    num_failures: int = 0
    req_failure_prob: float = 0
    resp_failure_prob: float = 0
    in_flight_failure_prob: float = 0

    def next(self) -> Loss | None:
        if not self.num_failures:
            return None
        dice = random.uniform(0, 100)
        for loss, share in zip(LOSSES, msgspec.structs.astuple(self)[1:], strict=True):
            if dice < share:
                self.num_failures -= 1
                return loss
            dice -= share
        return None


def losses() -> Losses:
    return msgspec.json.decode(_wires, type=Losses) if wires else Losses()


arm(os.environ.get("_FLEETCAST_FAILPOINT", ""))
