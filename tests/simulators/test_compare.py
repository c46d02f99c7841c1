"""Two results side by side: what differs is told from what only wavers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from simulators_made import performance

from fleet.errors import Misuse
from simulators.load import results
from simulators.load.compare import Result, compare, read_result


def rows(mean_ms: float, seed: int, seconds: int) -> list[Any]:
    """Seconds that hang together, as those of a run do."""
    wander = np.convolve(np.random.default_rng(seed).normal(0, 1, seconds + 4), np.ones(5) / 5, "valid")
    return [
        (n, 1_000 + int(50 * wander[n]), mean_ms + wander[n], 3 * mean_ms + wander[n], 9 * mean_ms)
        for n in range(seconds)
    ]


def seconds_of(mean_ms: float, seed: int) -> pl.DataFrame:
    return performance(seconds=rows(mean_ms, seed, 120)).seconds


def result(folder: Path, mean_ms: float, seed: int, seconds: int = 120) -> Result:
    first, last = [(n, 9, 1e4, 1e4, 1e4) for n in (-1, seconds)]  # outside of the run
    made = performance(seconds=[first, *rows(mean_ms, seed, seconds), last], lasted_s=seconds + 0.3)
    folder.mkdir()
    results.write(folder, made, lambda _: "")
    return read_result(folder)


def test_a_change_is_told_with_its_interval(tmp_path: Path) -> None:
    first, second = result(tmp_path / "a", 20.0, 1), result(tmp_path / "b", 25.0, 2)
    p50, p99, slowest, events = compare(first, second)
    assert p50.first.low < 20 < p50.first.high
    assert p50.change is not None
    assert p50.change.low < 0.25 < p50.change.high
    assert [row.differs for row in (p50, p99, slowest)] == [True] * 3
    assert not events.differs
    assert (slowest.first.low, slowest.first.high) == pytest.approx((180, 180))


def test_two_runs_of_the_same_do_not_differ_more_often_than_they_may(tmp_path: Path) -> None:
    whole, false = result(tmp_path / "a", 20.0, 0), 0
    for seed in range(0, 80, 2):
        pair = [msgspec.structs.replace(whole, seconds=seconds_of(20.0, seed + n)) for n in (0, 1)]
        false += compare(*pair)[0].differs
    assert false <= 8  # of 40 at 95 %: two, and a little more since blocks are short


def test_only_the_seconds_of_the_run_count(tmp_path: Path) -> None:
    assert len(result(tmp_path / "a", 20.0, 1, seconds=30).seconds) == 30


@pytest.mark.parametrize("name", ["summary.json", "seconds.parquet"])
def test_a_folder_without_a_result_is_refused(tmp_path: Path, name: str) -> None:
    result(tmp_path / "a", 20.0, 1)
    (tmp_path / "a" / name).write_text("nonsense")
    with pytest.raises(Misuse, match="a holds no result of a load test"):
        read_result(tmp_path / "a")
    with pytest.raises(Misuse, match="nowhere holds no result"):
        read_result(tmp_path / "nowhere")
