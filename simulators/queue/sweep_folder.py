"""A sweep's folder: what was asked (sweep.json), a file per point that is done, at last points.parquet and
report.html.

Whoever opens the folder with the same sweep goes on where it was left, and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from fleet.errors import Misuse, Unavailable
from simulators.folders import put_whole
from simulators.queue.experiment import Point, Sweep, frame_of
from simulators.scenario import TraceArrivals

ABOUT = "sweep.json"
TABLE = "points.parquet"
REPORT = "report.html"
POINTS = "points"


class SweepFolder:
    """Made if it is not there. Raises Misuse for one that holds something else."""

    def __init__(self, folder: Path, sweep: Sweep, version: str) -> None:
        self.folder = folder
        self._sweep = sweep
        self._about = about(sweep, version)
        try:
            self._open()
        except OSError as error:
            raise Misuse(f"--results {folder} cannot be written to: {error.strerror}") from None

    def _open(self) -> None:
        if (self.folder / ABOUT).exists():
            self._check_same(_read_about(self.folder / ABOUT))
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise Misuse(f"{self.folder} holds something that is no sweep: choose another --results")
        (self.folder / POINTS).mkdir(parents=True, exist_ok=True)
        if not (self.folder / ABOUT).exists():
            put_whole(self.folder / ABOUT, _json(self._about | {"seconds": None}))

    def _check_same(self, there: Mapping[str, Any]) -> None:
        # As text: to Python 1 and 1.0 are the same, to a table they are not.
        differs = [name for name, ours in self._about.items() if _json(there.get(name)) != _json(ours)]
        if differs:
            raise Misuse(
                f"{self.folder} holds another sweep ({', '.join(differs)} differ): choose another --results"
            )

    def known(self) -> dict[int, Point]:
        """The points that are done, by their numbers. A file that cannot be read is as none."""
        points = (self._read(number) for number in range(len(self._sweep.grid)))
        return {point.number: point for point in points if point is not None}

    def _read(self, number: int) -> Point | None:
        try:
            return _point(self._file(number).read_bytes())
        except (OSError, msgspec.DecodeError):
            return None

    def keep(self, point: Point) -> None:
        """Whole, or not at all. Raises Unavailable."""
        self._write(self._file(point.number), msgspec.json.encode(point))

    def finish(self, points: Sequence[Point]) -> pl.DataFrame:
        """The table of all points. Raises Unavailable."""
        # JSON has no infinity: through it, so that a point that was kept is like one that is new.
        frame = frame_of(self._sweep.grid, [_point(msgspec.json.encode(point)) for point in points])
        part = self.folder / f".{TABLE}"
        try:
            frame.write_parquet(part)
            part.replace(self.folder / TABLE)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise Unavailable(f"{self.folder / TABLE} cannot be written: {error}") from None
        took_s = round(sum(point.seconds for point in points), 3)
        self._write(self.folder / ABOUT, _json(self._about | {"seconds": took_s}))
        return frame

    def keep_report(self, html: str) -> None:
        """Raises Unavailable."""
        self._write(self.folder / REPORT, html.encode())

    def _file(self, number: int) -> Path:
        return self.folder / POINTS / f"{number:05}.json"

    def _write(self, path: Path, data: bytes) -> None:
        try:
            put_whole(path, data)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror}") from None


def about(sweep: Sweep, version: str) -> dict[str, Any]:
    """All that the figures hang on, and what they were found by."""
    return {
        "version": version,
        "seed": sweep.scenario.seed,
        "replications": sweep.replications,
        "warm_up_s": sweep.warm_up_s,
        "axes": {axis.name: list(axis.values) for axis in sweep.grid.axes},
        "scenario": sweep.scenario.model_dump(),
        "trace": _trace_of(sweep),
    }


def _trace_of(sweep: Sweep) -> str | None:
    """The digest of the file that the scenario has beside it."""
    jobs = sweep.scenario.jobs
    if jobs is None or not isinstance(jobs.arrivals, TraceArrivals):
        return None
    try:
        return hashlib.sha256((sweep.folder / jobs.arrivals.file).read_bytes()).hexdigest()
    except OSError as error:
        raise Misuse(f"the trace {jobs.arrivals.file} cannot be read: {error.strerror}") from None


def _point(data: bytes) -> Point:
    return msgspec.json.decode(data, type=Point)


def _read_about(path: Path) -> dict[str, Any]:
    try:
        there = json.loads(path.read_bytes())
    except ValueError:
        there = None
    if not isinstance(there, dict):
        raise Misuse(f"{path} cannot be read: choose another --results")
    return there


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
