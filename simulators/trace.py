"""Jobs that really came, from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fleet.errors import Misuse
from simulators.distributions import LONGEST_S
from simulators.keyed import NANO, Ints

MAX_JOBS = 10_000_000
SERVICE, CLASS = "service_s", "class"


class Trace(NamedTuple):
    """`work_ns` and `klass` (the place of the class among those of the scenario) are None if it does not say
    them."""

    came_ns: Ints
    work_ns: Ints | None
    klass: Ints | None


def read_trace(path: Path, classes: Sequence[str], ends_s: float) -> Trace:
    """What comes before `ends_s`. The first column is the time; a first line whose first cell is no number is
    a heading. Raises Misuse, with the line, for what cannot be read or goes back in time."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _Reader(path, classes, ends_s).read(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Misuse(f"the trace {path} cannot be read: {error}") from None


class _Reader:
    def __init__(self, path: Path, classes: Sequence[str], ends_s: float) -> None:
        self._path = path
        self._classes = {name: place for place, name in enumerate(classes)}
        self._ends_s = ends_s
        self._columns: dict[str, int] = {}
        self._came: list[int] = []
        self._work: list[int] = []
        self._klass: list[int] = []

    def read(self, rows: Iterator[list[str]]) -> Trace:
        last_s = 0.0
        for line, row in enumerate(rows, 1):
            if not row or (line == 1 and self._is_heading(row)):
                continue
            last_s = self._number(row, 0, line, last_s, "time in seconds that is not before the line above")
            if last_s >= self._ends_s:
                break
            self._take(row, line, last_s)
        return Trace(
            np.array(self._came, dtype=np.int64),
            np.array(self._work, dtype=np.int64) if SERVICE in self._columns else None,
            np.array(self._klass, dtype=np.int64) if CLASS in self._columns else None,
        )

    def _is_heading(self, row: list[str]) -> bool:
        try:
            float(row[0])
        except ValueError:
            names = [cell.strip().lower() for cell in row]
            self._columns = {name: names.index(name) for name in (SERVICE, CLASS) if name in names}
            return True
        return False

    def _take(self, row: list[str], line: int, at_s: float) -> None:
        if len(self._came) == MAX_JOBS:
            raise Misuse(f"{self._path} has more than {MAX_JOBS:,} jobs: end the scenario earlier")
        self._came.append(round(at_s * NANO))
        if (place := self._columns.get(SERVICE)) is not None:
            work_s = self._number(row, place, line, 0.0, "time in seconds")
            self._work.append(round(work_s * NANO))
        if (place := self._columns.get(CLASS)) is not None:
            self._klass.append(self._class(row, place, line))

    def _number(self, row: list[str], place: int, line: int, least: float, what: str) -> float:
        text = row[place] if place < len(row) else ""
        try:
            if least <= (number := float(text)) <= LONGEST_S:
                return number
        except ValueError:
            pass
        raise Misuse(f"{self._path}, line {line}: {text!r} is no {what}")

    def _class(self, row: list[str], place: int, line: int) -> int:
        name = row[place].strip() if place < len(row) else ""
        if name not in self._classes:
            raise Misuse(
                f"{self._path}, line {line}: there is no class {name!r}; there is {', '.join(self._classes)}"
            )
        return self._classes[name]
