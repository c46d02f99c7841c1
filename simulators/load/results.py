"""A run's folder: summary.json, latency.hgrm, the series and report.html."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import polars as pl

from fleet.errors import Unavailable
from simulators.load import outcome
from simulators.load.conductor import Performance

PARTIAL = "PARTIAL"
HGRM = "heartbeat_to_watcher"


def write(folder: Path, performance: Performance, report: Callable[[Performance], str]) -> None:
    """All of it, or what there is room for and a file PARTIAL that says what is missing, and why. Raises
    Unavailable for that."""
    files: dict[str, Callable[[Path], object]] = {
        "summary.json": lambda path: path.write_bytes(outcome.as_json(performance.outcome)),
        "latency.hgrm": lambda path: path.write_bytes(performance.latencies[HGRM].hgrm()),
        "series.parquet": lambda path: performance.frame.write_parquet(path),
        "seconds.parquet": lambda path: performance.seconds.write_parquet(path),
        "usage.parquet": lambda path: performance.usage.write_parquet(path),
        "report.html": lambda path: path.write_text(report(performance), encoding="utf-8"),
    }
    missing = []
    for name, put in files.items():
        try:
            put(folder / name)
        except (OSError, pl.exceptions.PolarsError) as error:
            missing.append(f"{name}: {getattr(error, 'strerror', None) or error}")
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    if missing:
        with contextlib.suppress(OSError):
            (folder / PARTIAL).write_text("\n".join(missing) + "\n")
        raise Unavailable(f"not all results could be written to {folder}: {'; '.join(missing)}")
