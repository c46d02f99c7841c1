"""What became of every job of one replication, and what follows for any part of its time."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from simulators.queue.statistics import Floats

SECOND = 1e9
NEVER = -1


class Fate(IntEnum):
    """FAILED were begun and not done; ABANDONED never began; BLOCKED were not let in."""

    THERE = 0
    SERVED = 1
    FAILED = 2
    ABANDONED = 3
    BLOCKED = 4


class History:
    """Jobs are numbered from 1, in the order in which they came. Times are told in nanoseconds, and kept.
    Memory grows with the jobs."""

    def __init__(self, lasts_s: float) -> None:
        self.lasts_s = lasts_s
        self._came: list[int] = []
        self._began: list[int] = []
        self._left: list[int] = []
        self._fate: list[Fate] = []
        self._since: list[int] = []  # when it began to wait or to be served, this time
        self._serving: list[bool] = []
        self._spans: dict[bool, list[tuple[int, int]]] = {False: [], True: []}  # from, to

    # -- as it is told

    def came(self, number: int, now_ns: int) -> None:
        assert number == len(self._came) + 1
        self._came.append(now_ns)
        self._began.append(NEVER)
        self._left.append(NEVER)
        self._fate.append(Fate.THERE)
        self._since.append(now_ns)
        self._serving.append(False)

    def waits(self, number: int, now_ns: int) -> None:
        self._turn(number - 1, now_ns, serving=False)

    def begins(self, number: int, now_ns: int) -> None:
        self._turn(number - 1, now_ns, serving=True)
        if self._began[number - 1] == NEVER:
            self._began[number - 1] = now_ns

    def leaves(self, number: int, now_ns: int, fate: Fate) -> None:
        self._turn(number - 1, now_ns, serving=False)
        self._left[number - 1] = now_ns
        self._fate[number - 1] = fate

    def _turn(self, place: int, now_ns: int, serving: bool) -> None:
        self._spans[self._serving[place]].append((self._since[place], now_ns))
        self._since[place], self._serving[place] = now_ns, serving

    # -- as it was

    def __len__(self) -> int:
        return len(self._came)

    def has_begun(self, number: int) -> bool:
        return self._began[number - 1] != NEVER

    def waits_s(self) -> tuple[Floats, Floats]:
        """Of those who were served, in the order in which they came: when that was, and how long it took
        from there to being served first."""
        came, began = np.array(self._came, dtype=np.int64), np.array(self._began, dtype=np.int64)
        these = began != NEVER
        return came[these] / SECOND, (began - came)[these] / SECOND

    def window(self, from_s: float) -> Window:
        return Window(self, from_s)

    def spans_s(self, serving: bool) -> Floats:
        """(from, to) of every time in which a job waited, or was served; those who still do, to the end."""
        end_ns = round(self.lasts_s * SECOND)
        open_ones = [
            (since, end_ns)
            for since, now_serving, fate in zip(self._since, self._serving, self._fate, strict=True)
            if fate is Fate.THERE and now_serving == serving
        ]
        return np.array(self._spans[serving] + open_ones, dtype=np.float64).reshape(-1, 2) / SECOND


class Window:
    """The part of a replication from `from_s` to its end, and its figures."""

    def __init__(self, history: History, from_s: float) -> None:
        self._history = history
        self._from_s = from_s
        self._lasts_s = history.lasts_s - from_s
        self._came = np.array(history._came) / SECOND
        self._began = np.array(history._began, dtype=np.float64)
        self._left = np.array(history._left, dtype=np.float64)
        self._fate = np.array(history._fate)

    def metrics(self, slots: int) -> dict[str, float]:
        """By the names of queueing theory; `Wq` and `P_wait` are of those who were begun, `W` of those who
        were served. `slots` is how many jobs the robots can do at once. What did not happen has no figure."""
        came = self._came >= self._from_s
        began = self._began / SECOND >= self._from_s
        left = self._left / SECOND >= self._from_s
        served = left & (self._fate == Fate.SERVED)
        waits = self._began[began] / SECOND - self._came[began]
        times = self._left[served] / SECOND - self._came[served]
        waiting, working = self._mean(serving=False), self._mean(serving=True)
        found = {
            "L": waiting + working,
            "Lq": waiting,
            "utilisation": working / slots,
            "throughput": np.count_nonzero(served) / self._lasts_s,
        }
        if len(waits):
            found |= {"Wq": float(np.mean(waits)), "P_wait": float(np.mean(waits > 0))}
            found |= {f"Wq_p{percent}": float(np.percentile(waits, percent)) for percent in (50, 95, 99)}
        if len(times):
            found["W"] = float(np.mean(times))
            found |= {f"W_p{percent}": float(np.percentile(times, percent)) for percent in (50, 95, 99)}
        if arrived := np.count_nonzero(came):
            for name, fate in (("P_block", Fate.BLOCKED), ("P_abandon", Fate.ABANDONED)):
                found[name] = np.count_nonzero(came & (self._fate == fate)) / arrived
        return found

    def _mean(self, serving: bool) -> float:
        """How many jobs waited, or were served, on average over time."""
        spans = self._history.spans_s(serving)
        overlaps = np.minimum(spans[:, 1], self._history.lasts_s) - np.maximum(spans[:, 0], self._from_s)
        return float(np.sum(np.maximum(overlaps, 0.0))) / self._lasts_s
