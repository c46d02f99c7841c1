"""Draws by what they are for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import stats

from simulators.distributions import Distribution
from simulators.keyed import Purpose, block, key_of, sample_ns, table_of, uniforms

READ: TypeAdapter[Distribution] = TypeAdapter(Distribution)
KEY = key_of(5)
HALF = {"kind": "empirical", "values": ["1s", "2s", "3s"], "weights": [1, 0, 3]}


@pytest.mark.parametrize(
    ("key", "counter", "numbers"),
    [
        ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_blocks_are_those_of_the_authors(
    key: tuple[int, int], counter: tuple[int, int, int, int], numbers: tuple[int, ...]
) -> None:
    """The known answers of Random123."""
    number = np.uint64(counter[0] | counter[1] << 32)
    made = block(np.array(key, dtype=np.uint64), number, np.uint64(counter[2]), np.uint64(counter[3]))
    assert made == numbers


def drawn(written: dict[str, Any], count: int = 20_000) -> Any:
    table = table_of([READ.validate_python(HALF), READ.validate_python(written)])
    return np.array([sample_ns(*table, 1, KEY, Purpose.SERVICE, n, 0) for n in range(count)]) / 1e9


@pytest.mark.parametrize(
    ("written", "law"),
    [
        ({"kind": "exponential", "mean": "2s"}, stats.expon(scale=2)),
        ({"kind": "erlang", "phases": 4, "mean": "2s"}, stats.gamma(4, scale=0.5)),
        ({"kind": "erlang", "phases": 5, "mean": "2s"}, stats.gamma(5, scale=0.4)),
        ({"kind": "uniform", "low": "1s", "high": "4s"}, stats.uniform(1, 3)),
        (
            {"kind": "lognormal", "mean": "2s", "scv": 3.0},
            stats.lognorm(np.sqrt(np.log(4)), scale=2 / np.sqrt(4)),
        ),
    ],
    ids=lambda each: each["kind"] if isinstance(each, dict) else "",
)
def test_draws_follow_their_law(written: dict[str, Any], law: Any) -> None:
    """Kolmogorov and Smirnov; one seed, so that it holds or does not."""
    assert stats.kstest(drawn(written), law.cdf).pvalue > 0.001


def test_a_mixture_is_drawn_from_its_parts() -> None:
    found = drawn({"kind": "hyperexponential", "means": ["1s", "10s"], "probabilities": [0.75, 0.25]})
    above = np.mean(found > 10)
    assert above == pytest.approx(0.75 * np.exp(-10) + 0.25 * np.exp(-1), abs=0.008)


def test_only_what_has_weight_is_drawn() -> None:
    values, counts = np.unique(drawn(HALF), return_counts=True)
    assert values.tolist() == [1, 3]
    assert counts[0] / counts.sum() == pytest.approx(0.25, abs=0.015)


def test_a_constant_is_what_it_is() -> None:
    assert set(drawn({"kind": "constant", "value": "1.5s"}, 5)) == {1.5}


def test_each_purpose_number_time_and_seed_has_draws_of_its_own() -> None:
    asked = [
        (key_of(seed), purpose, number, nth)
        for seed in (1, 2)
        for purpose in (Purpose.SERVICE, Purpose.PATIENCE)
        for number in (1, 2, 2**40)
        for nth in (0, 1)
    ]
    made = [uniforms(*each) for each in asked]
    assert len({share for pair in made for share in pair}) == 2 * len(asked)
    assert made == [uniforms(*each) for each in asked]
