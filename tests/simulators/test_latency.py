"""Latencies against known truth."""

from __future__ import annotations

import numpy as np
import pytest

from simulators.load.latency import LONGEST_US, Latencies


def of(*values_us: int) -> Latencies:
    latencies = Latencies()
    latencies.record(np.array(values_us, dtype=np.int64))
    return latencies


def test_quantiles_are_those_of_the_values() -> None:
    found = of(*range(1_000, 1_001_000, 1_000)).summary()
    truth = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999, "max": 1_000}
    assert found == pytest.approx(truth, rel=0.001)


def test_every_value_is_counted_within_a_thousandth() -> None:
    values = np.unique(np.geomspace(1, LONGEST_US, 300).astype(np.int64))
    for value in values.tolist():
        assert of(value).quantile_ms(100) == pytest.approx(value / 1_000, rel=0.001)


def test_what_is_out_of_range_counts_as_its_end() -> None:
    latencies = of(-5, 0, LONGEST_US * 2)
    assert len(latencies) == 3
    assert latencies.quantile_ms(1) == 0.001
    assert latencies.quantile_ms(100) == pytest.approx(LONGEST_US / 1_000, rel=0.001)


def test_an_empty_one_says_zero() -> None:
    assert of().summary() == dict.fromkeys(["p50", "p90", "p95", "p99", "p999", "max"], 0.0)
    assert of().mean_ms == 0.0


def test_merging_is_recording_it_all_in_one() -> None:
    rng = np.random.default_rng(5)
    parts = [rng.integers(1, 10**7, 1_000) for _ in range(4)]
    merged = Latencies()
    for part in parts:
        merged.add(Latencies(of(*part).encoded()))
    whole = of(*np.concatenate(parts))
    assert merged.summary() == whole.summary()
    assert merged.hgrm() == whole.hgrm()
    assert len(merged) == 4_000


def test_coordinated_omission() -> None:
    """Tene, "How NOT to measure latency": 100 s at a request per 10 ms, 1 ms each, then a stall of 100 s."""
    naive, corrected = of(*[1_000] * 10_000, 100_000_000), Latencies()
    for value_us in [*[1_000] * 10_000, 100_000_000]:
        corrected.record_corrected(value_us, 10_000)
    assert (len(naive), len(corrected)) == (10_001, 20_000)
    assert naive.mean_ms == pytest.approx(10.99890011, rel=0.01)
    assert [naive.quantile_ms(p) for p in (50, 99, 99.99)] == pytest.approx([1, 1, 1], rel=0.001)
    assert corrected.mean_ms == pytest.approx(25_003.0, rel=0.01)
    assert [corrected.quantile_ms(p) for p in (50, 75, 99, 99.99)] == pytest.approx(
        [1, 50_000, 98_000, 99_980], rel=0.001
    )


def test_the_percentile_curve_is_what_plotters_read() -> None:
    head, *lines = of(1_000, 2_000, 3_000).hgrm().decode().splitlines()
    assert head.split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert any(line.startswith("#[Mean") for line in lines)
