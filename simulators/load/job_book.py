"""What became of each job of a run, from what its producer, its robots and the server say."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from simulators.load.fleet import JobWord
from simulators.load.job_load import Submitted
from simulators.load.latency import Latencies
from simulators.load.watchers import Origin

MOST_EARLY = 100_000  # the oldest go first


class _Open(msgspec.Struct):
    due_us: int
    granted_us: int = 0


class JobBook:
    """Words come in any order. Memory: a few words for each job that is not over, the ids of those that are,
    and `MOST_EARLY` jobs that may be somebody else's."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._early: dict[str, list[JobWord]] = {}  # of jobs whose producer has not been heard yet
        self._over: set[str] = set()
        self.completed = self.failed_attempts = self.duplicated = 0
        self.latencies = {name: Latencies() for name in ("submit", "grant", "life")}

    @property
    def open(self) -> list[str]:
        """Accepted, and not seen to be over."""
        return list(self._open)

    def knows(self, job_id: str) -> bool:
        return job_id in self._open or job_id in self._over

    def submitted(self, words: Iterable[Submitted]) -> list[Origin]:
        """What watchers must know of them."""
        origins, waits_us = [], []
        for word in words:
            self._open[word.job_id] = _Open(word.due_us)
            waits_us.append(word.acked_us - word.due_us)
            origins.append(Origin(word.job_id, "pending", word.due_us))
            self.worked(self._early.pop(word.job_id, ()))
        self._record("submit", waits_us)
        return origins

    def worked(self, words: Iterable[JobWord]) -> list[Origin]:
        origins = []
        for word in words:
            job = self._open.get(word.job_id)
            if word.outcome == "completed" and word.acked_us and word.job_id in self._over:
                self.duplicated += 1
            elif job is None:
                self._early.setdefault(word.job_id, []).append(word)
                if len(self._early) > MOST_EARLY:
                    del self._early[next(iter(self._early))]
            else:
                origins += self._note(job, word)
        return origins

    def _note(self, job: _Open, word: JobWord) -> list[Origin]:
        if not job.granted_us:
            job.granted_us = word.granted_us
            self._record("grant", [word.granted_us - job.due_us])
        if not word.acked_us:
            return []  # its robot lost it
        if word.outcome != "completed":
            self.failed_attempts += 1
            return []
        del self._open[word.job_id]
        self._over.add(word.job_id)
        self.completed += 1
        self._record("life", [word.acked_us - job.due_us])
        return [Origin(word.job_id, "completed", word.told_us)]

    def _record(self, name: str, values_us: list[int]) -> None:
        if values_us:
            self.latencies[name].record(np.array(values_us, dtype=np.int64))
