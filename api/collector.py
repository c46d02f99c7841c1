"""The garbage collector of a serving process: its pauses are every watcher's."""

from __future__ import annotations

import gc

# Net new containers before a look at the young ones; looks at the young before one at the middle-aged; and of
# those before one at everything.
YOUNG, MIDDLE, OLD = 50_000, 5, 1_000


def settle() -> None:
    """What is there now stays, and is not looked at again. Sockets end without cycles, and what a batch holds
    is gone before the young are looked at; by default 5,000 robots meant a pause of 0.2 s every few seconds.
    (A full collection still comes once a quarter of what lives is new.)"""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
