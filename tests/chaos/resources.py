"""Memory, descriptors and threads of the server's processes, and whether they grow."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

import msgspec

from chaos.house import TITLES, House, Process, descendants

EVERY_S = 2.0
WARM_UP_S = 20.0  # of a process, in which its growth is its start
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Sample(msgspec.Struct, frozen=True):
    at_s: float
    rss_mb: float
    fds: int
    threads: int


class Slope(msgspec.Struct, frozen=True):
    """Per minute. `end` is the last sample."""

    samples: int
    rss_mb: float
    fds: float
    threads: float
    end: Sample | None


class Resources:
    def __init__(self, house: House) -> None:
        self._house = house
        self._seen: dict[tuple[str, int, str], list[Sample]] = defaultdict(list)

    def look(self) -> None:
        names = {title: name for name, title in TITLES.items()}
        for process in descendants(self._house.pid):
            name = names.get(process.title.split(" ")[0].split(".")[0])
            if name is not None:
                self._note(name, process)
        self._note("door", Process(self._house.pid, 0, "", ""))

    def _note(self, name: str, process: Process) -> None:
        sample = sample_of(process.pid)
        if sample is not None:
            self._seen[name, process.pid, process.began].append(sample)

    def slopes(self) -> dict[str, Slope]:
        """Of each kind over all its lives, warm ones only: a leak that a death hides is none."""
        kinds: dict[str, list[list[Sample]]] = defaultdict(list)
        for (name, _, _), samples in sorted(self._seen.items()):
            kinds[name].append([s for s in samples if s.at_s - samples[0].at_s >= WARM_UP_S])
        return {name: slope_of(lives) for name, lives in kinds.items()}


def sample_of(pid: int) -> Sample | None:
    folder = Path("/proc") / str(pid)
    try:
        rss = int((folder / "statm").read_text().split()[1]) * PAGE_BYTES / 1e6
        threads = len(os.listdir(folder / "task"))
        return Sample(time.monotonic(), rss, len(os.listdir(folder / "fd")), threads)
    except (FileNotFoundError, ProcessLookupError):
        return None


def slope_of(lives: list[list[Sample]]) -> Slope:
    """Least squares, each life about its own mean."""
    samples = [sample for life in lives for sample in life]
    end = max(samples, key=lambda sample: sample.at_s, default=None)
    rss_mb, fds, threads = (_per_minute(lives, name) for name in ("rss_mb", "fds", "threads"))
    return Slope(len(samples), rss_mb, fds, threads, end)


def _per_minute(lives: list[list[Sample]], name: str) -> float:
    above = below = 0.0
    for life in lives:
        if not life:
            continue
        mean_at = sum(sample.at_s for sample in life) / len(life)
        mean = sum(getattr(sample, name) for sample in life) / len(life)
        above += sum((sample.at_s - mean_at) * (getattr(sample, name) - mean) for sample in life)
        below += sum((sample.at_s - mean_at) ** 2 for sample in life)
    return 60 * above / below if below else 0.0
