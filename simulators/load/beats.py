"""Which heartbeat an event tells of: its number and the time when it was due, in the digits of its figures.

A server passes `cpu_percent` and `memory_mb` on as they came, so that what a watcher receives can be told
from every other beat without a field that the contract does not have. What people read of the figures stays
true: the CPU in sixteenths of a percent, the memory in whole megabytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CPU_STEP = 1 / 16
MOST_CPU = 100 - CPU_STEP
MOST_MEMORY_MB = 2**20 - 1
_NUMBER = 2.0**44  # below a step of the CPU: 40 bits
_AROUND = 2**32  # microseconds below a megabyte: they begin anew each 71 minutes
MOST_NUMBER = 2**40 - 1


def cpu_percent(cpu: Floats, numbers: Ints) -> Floats:
    """`numbers` count a robot's beats from 1; 0 is what a robot shows that has not beaten."""
    steps = np.floor(np.minimum(np.maximum(cpu, 0.0), MOST_CPU) / CPU_STEP) * CPU_STEP
    return np.asarray(steps + numbers / _NUMBER)


def memory_mb(memory: Floats, due_us: Ints) -> Floats:
    """`due_us` by any clock that sender and receiver share."""
    whole = np.floor(np.minimum(np.maximum(memory, 0.0), MOST_MEMORY_MB))  # np.clip is slow
    return np.asarray(whole + (due_us % _AROUND) / _AROUND)


def numbers_of(cpu: Floats) -> Ints:
    return np.asarray(np.rint((cpu % CPU_STEP) * _NUMBER), dtype=np.int64)


def latencies_us(memory: Floats, received_us: Ints) -> Ints:
    """Since the beats were due; a little below 0 where the clocks of two nodes differ."""
    due = np.rint((memory % 1.0) * _AROUND).astype(np.int64)
    late = (received_us - due) % _AROUND
    return np.asarray(np.where(late < _AROUND // 2, late, late - _AROUND))
