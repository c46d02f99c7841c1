"""Latencies in HDR histograms: exact counts, values to three digits, added up without loss."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

from simulators.load.beats import Ints

LONGEST_US = 3_600_000_000
DIGITS = 3
FOLD_AT = 65_536  # values: a histogram takes them one by one, but equal ones at once
QUANTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}


class Latencies:
    """In microseconds, from 1 to an hour; what is shorter or longer counts as that."""

    def __init__(self, encoded: bytes | None = None) -> None:
        self._counts: Any = HdrHistogram.decode(encoded) if encoded else HdrHistogram(1, LONGEST_US, DIGITS)
        self._new: list[Ints] = []
        self._new_count = 0

    def __len__(self) -> int:
        return int(self._hdr.get_total_count())

    @property
    def _hdr(self) -> Any:
        """With all that was recorded."""
        if self._new:
            recorded = np.clip(np.concatenate(self._new), 1, LONGEST_US)
            self._new, self._new_count = [], 0
            values, counts = np.unique(_to_digits(recorded), return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                self._counts.record_value(value, count)
        return self._counts

    def record(self, values_us: Ints) -> None:
        """The caller changes them no more."""
        self._new.append(values_us)
        self._new_count += len(values_us)
        if self._new_count >= FOLD_AT:
            _ = self._hdr

    def record_one(self, value_us: int) -> None:
        self._hdr.record_value(min(max(value_us, 1), LONGEST_US))

    def record_corrected(self, value_us: int, interval_us: int) -> None:
        """Of a closed loop that should have asked each `interval_us`: what it did not ask while it waited is
        added, as it would have waited."""
        self._hdr.record_corrected_value(min(max(value_us, 1), LONGEST_US), interval_us)

    def add(self, other: Latencies) -> None:
        self._hdr.add(other._hdr)

    def encoded(self) -> bytes:
        return bytes(self._hdr.encode())

    @property
    def mean_ms(self) -> float:
        return float(self._hdr.get_mean_value()) / 1_000 if len(self) else 0.0

    def quantile_ms(self, percent: float) -> float:
        return float(self._hdr.get_value_at_percentile(percent)) / 1_000

    def summary(self) -> dict[str, float]:
        """p50 to p999 and max, in milliseconds."""
        found = {name: self.quantile_ms(percent) for name, percent in QUANTILES.items()}
        return found | {"max": float(self._hdr.get_max_value()) / 1_000}

    def hgrm(self) -> bytes:
        """The percentile curve in the text format that plotters of HDR histograms read, in milliseconds."""
        out = io.BytesIO()
        self._hdr.output_percentile_distribution(out, 1_000)
        return out.getvalue()


def _to_digits(values: Ints) -> Ints:
    """What the histogram cannot tell apart becomes one value, so that it is recorded once."""
    shift = np.maximum(np.int64(0), np.int64(np.log2(values)) - 11)
    return np.asarray((values >> shift) << shift)
