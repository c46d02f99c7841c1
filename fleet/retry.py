"""How long a failed attempt waits before the next."""

from __future__ import annotations

from random import Random

from fleet.limits import MS, Limits

MAX_EXPONENT = 40  # 2**40 ms is past every cap; keeps a huge attempt number from building a huge integer


def backoff_ns(attempt: int, limits: Limits, rng: Random) -> int:
    """Full jitter: uniform in [0, min(cap, base x 2^(attempt - 1))] (Brooker 2015, "Exponential
    Backoff And Jitter"). `attempt` counts from 1; returns nanoseconds."""
    exponent = min(max(attempt, 1) - 1, MAX_EXPONENT)
    ceiling_ms = min(limits.backoff_max_ms, limits.backoff_base_ms << exponent)
    return rng.randrange(ceiling_ms * MS + 1)
