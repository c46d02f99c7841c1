"""A bounded parallel map over whatever Ray is connected."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import ray
import ray.exceptions

from fleet.errors import Unavailable

Item = TypeVar("Item")
Made = TypeVar("Made")
# A task has one processor: numeric libraries that took them all would take those of the others.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "POLARS_MAX_THREADS",
    ),
    "1",
)


def spread(
    function: Callable[[Item], Made], items: Iterable[Item], at_once: int
) -> Generator[tuple[int, Made | Exception]]:
    """(number of the item, what the function made of it), as they are done, `at_once` at most on their way.
    An error that it raised takes the place of what it made; a process that was lost, Unavailable, after
    a second try. Closing this, or an interrupt, kills the processes of those that run."""
    task: Any = ray.remote(_make).options(num_cpus=1, max_retries=1, runtime_env={"env_vars": ONE_THREAD})
    on_the_way: dict[Any, int] = {}
    left = iter(enumerate(items))
    try:
        while True:
            for number, item in left:
                on_the_way[task.remote(function, item)] = number
                if len(on_the_way) >= at_once:
                    break
            if not on_the_way:
                return
            [done], _ = ray.wait(list(on_the_way), num_returns=1)
            yield on_the_way.pop(done), _outcome(done)
    finally:
        for each in on_the_way:
            ray.cancel(each, force=True)


def _make(function: Callable[[Item], Made], item: Item) -> Made:
    return function(item)


def _outcome(done: Any) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        return cause if isinstance(cause, Exception) else error
    except ray.exceptions.RayError as error:
        return Unavailable(f"a process that did this was lost ({type(error).__name__})")
