"""What one watcher received of what was sent: lost, duplicated, reordered, each counted exactly."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from simulators.load.beats import Ints

UNKNOWN = -1


class Tally(msgspec.Struct):
    """`in_flight`: what a robot had said last when its connection ended. Nobody can tell whether the server
    took it, so that it is not called lost."""

    received: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    in_flight: int = 0

    def add(self, other: Tally) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Ledger:
    """Of the numbered events of many senders, each counting from 1. Holds a number per sender, and the gaps:
    memory grows with what is missing, not with what came."""

    def __init__(self, senders: int) -> None:
        self._next = np.ones(senders, dtype=np.int64)
        self._missing: dict[int, set[int]] = {}
        self._tally = Tally()

    def join_late(self) -> None:
        """From now on only what comes after a sender's next event counts."""
        self._next[:] = UNKNOWN
        self._missing.clear()

    def hear(self, senders: Ints, numbers: Ints) -> None:
        """In the order in which they came."""
        self._tally.received += len(senders)
        expected = self._next[senders]
        # By far the most batches hold each sender's next, once.
        if np.array_equal(expected, numbers) and len(np.unique(senders)) == len(senders):
            self._next[senders] = numbers + 1
            return
        for sender, number in zip(senders.tolist(), numbers.tolist(), strict=True):
            self._note(sender, number)

    def _note(self, sender: int, number: int) -> None:
        expected = int(self._next[sender])
        if number == expected or expected == UNKNOWN:
            self._next[sender] = number + 1
        elif number > expected:
            self._missing.setdefault(sender, set()).update(range(expected, number))
            self._next[sender] = number + 1
        elif number in (missing := self._missing.get(sender, set())):
            missing.discard(number)
            self._tally.reordered += 1
        else:
            self._tally.duplicated += 1

    def judge(self, sent: Ints, cuts: Mapping[int, Sequence[int]]) -> Tally:
        """`sent`: how many events each sender sent; `cuts`: its last numbers on connections that ended, in
        order."""
        tally = msgspec.structs.replace(self._tally)
        known = self._next != UNKNOWN
        behind = np.flatnonzero(known & (self._next <= sent))
        missing = {sender: sorted(numbers) for sender, numbers in self._missing.items() if numbers}
        for sender in behind.tolist():
            missing.setdefault(sender, []).extend(range(int(self._next[sender]), int(sent[sender]) + 1))
        for sender, numbers in missing.items():
            unknown = _cut_off(numbers, cuts.get(sender, ()))
            tally.in_flight += unknown
            tally.lost += len(numbers) - unknown
        return tally

    def last(self) -> Ints:
        """The newest number of each sender; 0 for one of whom nothing came."""
        return np.asarray(np.where(self._next == UNKNOWN, 0, self._next - 1))


class Latest:
    """Of a watcher who is told the newest of each sender now and then: the last must come, and none after a
    later one."""

    def __init__(self, senders: int) -> None:
        self._last = np.zeros(senders, dtype=np.int64)
        self._tally = Tally()

    def join_late(self) -> None:
        """What it heard before still counts."""

    def hear(self, senders: Ints, numbers: Ints) -> None:
        """In the order in which they came."""
        self._tally.received += len(senders)
        if len(np.unique(senders)) == len(senders):
            self._note(senders, numbers)
            return
        for place in range(len(senders)):
            self._note(senders[place : place + 1], numbers[place : place + 1])

    def _note(self, senders: Ints, numbers: Ints) -> None:
        last = self._last[senders]
        self._tally.duplicated += int(np.count_nonzero(numbers == last))
        self._tally.reordered += int(np.count_nonzero(numbers < last))
        self._last[senders] = np.maximum(last, numbers)

    def judge(self, sent: Ints, cuts: Mapping[int, Sequence[int]]) -> Tally:
        tally = msgspec.structs.replace(self._tally)
        for sender in np.flatnonzero(self._last < sent).tolist():
            missing = list(range(int(self._last[sender]) + 1, int(sent[sender]) + 1))
            unknown = _cut_off(missing, cuts.get(sender, ())) == len(missing)
            tally.in_flight += unknown
            tally.lost += not unknown
        return tally


def _cut_off(missing: list[int], cuts: Sequence[int]) -> int:
    """How many of them lead up to a cut without a gap."""
    unknown = 0
    for cut in cuts:
        place = bisect_left(missing, cut)
        while 0 <= place < len(missing) and missing[place] == cut:
            unknown += 1
            place, cut = place - 1, cut - 1
    return unknown
