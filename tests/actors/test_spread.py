"""A map over many processes, on one Ray."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import ray

import fleetcast
from actors.spread import spread
from fleet.errors import Misuse, Unavailable
from simulators.queue import sweep

YARD: dict[str, Any] = {
    "name": "yard",
    "duration": "30s",
    "fleets": {"arms": {"count": 2, "heartbeats": {"interval": "60s"}}},
    "jobs": {
        "arrivals": {"kind": "poisson", "rate": 1},
        "classes": {"weld": {"service": {"kind": "exponential", "mean": "1s"}}},
    },
}


def double(number: int) -> int:
    if number == 2:
        raise Misuse("two is too many")
    if number == 3:
        raise KeyError("three")
    return 2 * number


def die(number: int) -> None:
    os._exit(1)


def threads(number: int) -> tuple[int, str | None]:
    import polars

    return polars.thread_pool_size(), os.environ.get("OMP_NUM_THREADS")


def test_every_item_is_answered_once_and_an_error_is_that_of_its_item_alone(ray_cluster: None) -> None:
    made = dict(spread(double, range(6), at_once=2))
    assert [made[number] for number in (0, 1, 4, 5)] == [0, 2, 8, 10]
    assert isinstance(made[2], Misuse)
    assert made[2].detail == "two is too many"
    assert isinstance(made[3], KeyError)


def test_no_more_are_on_their_way_than_may_be(ray_cluster: None) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(6):
            taken.append(number)
            yield number

    under_way = [len(taken) - done for done, _ in enumerate(spread(double, items(), at_once=3))]
    assert under_way == [3, 3, 3, 3, 2, 1]


def test_what_runs_is_ended_with_the_map(ray_cluster: None) -> None:
    """The two processors would else be taken for ever, and the second map would hang."""

    def first_or_never(number: int) -> int:
        return number if number == 0 else threading.Event().wait()

    with contextlib.closing(spread(first_or_never, range(5), at_once=3)) as making:
        assert next(making) == (0, 0)
    assert sorted(spread(abs, [1, 2, 3], at_once=2)) == [(0, 1), (1, 2), (2, 3)]


def test_a_process_that_is_lost_is_an_answer_too(ray_cluster: None) -> None:
    [(number, made)] = spread(die, [0], at_once=1)
    assert number == 0
    assert isinstance(made, Unavailable)


def test_numeric_libraries_take_one_thread(ray_cluster: None) -> None:
    assert list(spread(threads, [0], at_once=1)) == [(0, (1, "1"))]


def test_nothing_is_made_of_nothing(ray_cluster: None) -> None:
    assert list(spread(double, [], at_once=2)) == []


def test_a_sweep_over_many_processes_gives_the_same_bits(ray_cluster: None) -> None:
    over = {"robots": [1, 2], "load": [0.5, 0.8]}
    here = sweep(YARD, over, replications=2)
    there = sweep(YARD, over, replications=2, processes=2, workers=fleetcast.workers)
    assert there.frame().equals(here.frame())
    assert ray.is_initialized()  # it was there before


def test_what_a_point_cannot_be_comes_back_from_its_process(ray_cluster: None) -> None:
    traced = YARD | {"jobs": YARD["jobs"] | {"arrivals": {"kind": "trace", "file": "nowhere.csv"}}}
    with pytest.raises(Misuse, match=r"2 of 2 points failed: seed=1: the trace nowhere\.csv cannot be read"):
        sweep(traced, {"seed": [1, 2]}, replications=2, processes=2, workers=fleetcast.workers)
