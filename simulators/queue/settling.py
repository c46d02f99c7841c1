"""When a queue that began empty had settled: MSER-5 (White, Cobb and Spratt 2000), on the mean over the
replications (Welch 1983), since the chance of each would be taken for a beginning."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from simulators.keyed import Floats
from simulators.queue import statistics
from simulators.queue.figures import Replication

HARDLY = 0.1  # of the batches, in which somebody waits
LEAST_JOBS = 20  # before it can be told


def settled_ns(played: Sequence[Replication]) -> float | None:
    """None if there were too few jobs to tell, and inf if it had not settled before half of all had come."""
    if any(each.left < LEAST_JOBS for each in played):
        return None
    size = max(each.batch_size for each in played)
    batches = [each.batches_of(size) for each in played]
    many = min(len(waits) for waits, _ in batches)
    if many == 0:
        return None
    waits = np.mean([waits[:many] for waits, _ in batches], axis=0)
    if np.count_nonzero(waits) < HARDLY * many:
        return _filled_ns(played)
    cut = _cut(waits)
    return inf if cut is None else 0.0 if cut == 0 else max(float(begins[cut]) for _, begins in batches)


def _filled_ns(played: Sequence[Replication]) -> float:
    """Where hardly anybody waits, it is the number of jobs there that settles."""
    cut = _cut(np.mean([each.there()[:-1] for each in played], axis=0))
    return inf if cut is None else played[0].begins_s(cut + 1) * 1e9


def _cut(values: Floats) -> int | None:
    """None for one that is as late as may be."""
    cut = statistics.mser(values)
    return None if cut >= len(values) // 2 - 1 else cut
