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
FULL_S = 1_200.0  # by when caches and rings are full
MOST_MB_A_MINUTE = 1.0
MOST_A_MINUTE = 0.5  # of descriptors, and of threads
# The job store keeps pages of its file in memory, 64 MiB a connection, as the file grows.
CACHES = frozenset({"job-store"})
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
    """`record` keeps every sample, a line of JSON each."""

    def __init__(self, house: House, record: Path) -> None:
        self._house = house
        self._record = record.open("wb")
        self._began_s = time.monotonic()
        self._seen: dict[tuple[str, int, str], list[Sample]] = defaultdict(list)

    def look(self) -> None:
        names = {title: name for name, title in TITLES.items()}
        for process in descendants(self._house.pid):
            name = names.get(process.title.split(" ")[0].split(".")[0])
            if name is not None:
                self._note(name, process)
        self._note("door", Process(self._house.pid, 0, "", ""))
        self._record.flush()

    def _note(self, name: str, process: Process) -> None:
        sample = sample_of(process.pid)
        if sample is not None:
            self._seen[name, process.pid, process.began].append(sample)
            self._record.write(
                msgspec.json.encode([name, process.pid, *msgspec.structs.astuple(sample)]) + b"\n"
            )

    def slopes(self) -> dict[str, Slope]:
        """Of each kind over all its lives, in the second half of the run: before, caches and rings fill."""
        half_s = (self._began_s + time.monotonic()) / 2
        kinds: dict[str, list[Sample]] = defaultdict(list)
        for (name, _, _), samples in sorted(self._seen.items()):
            warm_s = max(half_s, samples[0].at_s + WARM_UP_S)
            kinds[name] += [sample for sample in samples if sample.at_s >= warm_s]
        return {name: slope_of(samples) for name, samples in kinds.items()}

    def close(self) -> None:
        self._record.close()


def growing(slopes: dict[str, Slope]) -> list[str]:
    """What grows, in the second half of a run of `FULL_S` at least."""
    return [
        f"{name}: {rate:+.2f} {what} a minute"
        for name, slope in sorted(slopes.items())
        for what, rate, most in (
            ("MB", slope.rss_mb, MOST_MB_A_MINUTE),
            ("files", slope.fds, MOST_A_MINUTE),
            ("threads", slope.threads, MOST_A_MINUTE),
        )
        if rate > most and not (what == "MB" and name in CACHES)
    ]


def sample_of(pid: int) -> Sample | None:
    folder = Path("/proc") / str(pid)
    try:
        rss = int((folder / "statm").read_text().split()[1]) * PAGE_BYTES / 1e6
        threads = len(os.listdir(folder / "task"))
        return Sample(time.monotonic(), rss, len(os.listdir(folder / "fd")), threads)
    except (FileNotFoundError, ProcessLookupError):
        return None


def slope_of(samples: list[Sample]) -> Slope:
    """By least squares."""
    end = max(samples, key=lambda sample: sample.at_s, default=None)
    rss_mb, fds, threads = (_per_minute(samples, name) for name in ("rss_mb", "fds", "threads"))
    return Slope(len(samples), rss_mb, fds, threads, end)


def _per_minute(samples: list[Sample], name: str) -> float:
    if not samples:
        return 0.0
    mean_at = sum(sample.at_s for sample in samples) / len(samples)
    mean = sum(getattr(sample, name) for sample in samples) / len(samples)
    above = sum((sample.at_s - mean_at) * (getattr(sample, name) - mean) for sample in samples)
    below = sum((sample.at_s - mean_at) ** 2 for sample in samples)
    return 60 * above / below if below else 0.0
