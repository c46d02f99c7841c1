"""A folder with the results of one run or one comparison."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from fleet.errors import Misuse, Unavailable
from simulators.folders import put_whole
from simulators.queue import comparison, frames
from simulators.queue.comparison import Compared
from simulators.queue.lab import Findings
from simulators.queue.queue_report import compare_report, run_report
from simulators.scenario import Scenario

RUN = ("metrics.parquet", "robots.parquet", "curves.parquet", "summary.json", "report.html")
COMPARISON = ("differences.parquet", "compare.json", "report.html")


class ResultFolder:
    """Made if it is not there; results of the same kind that it holds are written anew. Raises Misuse for one
    that cannot be written to or holds something else, before anything is played."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self._names = names
        try:
            self._open()
        except OSError as error:
            raise Misuse(f"--results {folder} cannot be written to: {error.strerror}") from None

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise Misuse(f"--results {self.folder} cannot be written to: it is not ours")
        ours = {*self._names, *(f".{name}" for name in self._names)}
        if others := sorted({path.name for path in self.folder.iterdir()} - ours):
            raise Misuse(f"--results {self.folder} holds something else ({others[0]}): choose another")

    def write(self, files: Mapping[str, bytes]) -> None:
        """Each whole, or not at all. Raises Unavailable."""
        for name in self._names:
            try:
                put_whole(self.folder / name, files[name])
            except OSError as error:
                raise Unavailable(f"{self.folder / name} cannot be written: {error.strerror}") from None


class RunFolder(ResultFolder):
    def __init__(self, folder: Path, version: str) -> None:
        super().__init__(folder, RUN)
        self._version = version

    def keep(
        self, found: Findings, scenario: Scenario, warm_up_s: float | None, engine: str, summary: str
    ) -> None:
        """`warm_up_s` and `engine` as they were asked for; `summary` is what --json prints. Raises
        Unavailable."""
        self.write(
            {
                "metrics.parquet": _parquet(frames.metrics_of(found)),
                "robots.parquet": _parquet(frames.robots_of(found, scenario)),
                "curves.parquet": _parquet(frames.curves_of(found)),
                "summary.json": summary.encode() + b"\n",
                "report.html": run_report(found, scenario, warm_up_s, self._version, engine).encode(),
            }
        )


class ComparisonFolder(ResultFolder):
    def __init__(self, folder: Path, version: str) -> None:
        super().__init__(folder, COMPARISON)
        self._version = version

    def keep(self, found: Compared, scenario: Scenario, warm_up_s: float | None, summary: str) -> None:
        """As of a run. Raises Unavailable."""
        self.write(
            {
                "differences.parquet": _parquet(comparison.frame_of(found)),
                "compare.json": summary.encode() + b"\n",
                "report.html": compare_report(found, scenario, warm_up_s, self._version).encode(),
            }
        )


def _parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()
