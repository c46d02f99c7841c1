"""What a run's samples of CPU and memory come to: by node, by side, by robot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

import msgspec
import polars as pl

from simulators.load.usage import NodeUsage

MIB, KIB = 2**20, 2**10
LEAST_ROBOTS = 1_000  # of fewer a share of what a process needs anyway would be said
COLUMNS = {
    "at_s": pl.Float64,
    "node": pl.String,
    "cpu_cores": pl.Float64,
    "memory_mib": pl.Float64,
    "server_cpu_cores": pl.Float64,
    "server_mib": pl.Float64,
    "generator_cpu_cores": pl.Float64,
    "generator_mib": pl.Float64,
}


class SideFigures(msgspec.Struct, frozen=True):
    """While the scenario played. `processes`: at most; `cpu_cores`: in use on average; `kib_per_robot`:
    memory that came with the robots, None for fewer than `LEAST_ROBOTS`."""

    processes: int
    cpu_cores: float
    memory_mib_first: float
    memory_mib_last: float
    memory_mib_max: float
    kib_per_robot: float | None


class NodeFigures(msgspec.Struct, frozen=True):
    """Of all that ran on the node."""

    node: str
    cores: int
    cpu_cores: float
    memory_mib_max: float


class UsageFigures(msgspec.Struct, frozen=True):
    """A side is None if none of its processes is on a node of ours."""

    server: SideFigures | None
    generator: SideFigures | None
    nodes: list[NodeFigures]


class UsageLog:
    """`note` takes a sample of each node; a figure of CPU needs two."""

    def __init__(self) -> None:
        self._last: dict[str, NodeUsage] = {}
        self._rows: list[tuple[float, str, float, float, float, float, float, float]] = []
        self._first: dict[str, NodeUsage] = {}
        self._final: dict[str, NodeUsage] = {}
        self._most = {"server": 0, "generator": 0}  # processes
        self._server_before = 0
        self._of_robots = {"server": 0, "generator": 0}

    def note(self, at_s: float, samples: Sequence[NodeUsage]) -> None:
        for side in self._most:
            there = sum(getattr(each, side).processes for each in samples)
            self._most[side] = max(self._most[side], there)
        for now in samples:
            before, self._last[now.node] = self._last.get(now.node), now
            span_s = now.at_s - before.at_s if before else 0.0
            if before is None or span_s <= 0 or self._final:
                continue
            cores = [
                max(0.0, used - used_before) / span_s
                for used, used_before in (
                    (now.busy_s, before.busy_s),
                    (now.server.cpu_s, before.server.cpu_s),
                    (now.generator.cpu_s, before.generator.cpu_s),
                )
            ]
            row = (at_s, now.node, cores[0], now.memory / MIB)
            self._rows.append((*row, cores[1], now.server.memory / MIB, cores[2], now.generator.memory / MIB))

    def before_robots(self) -> None:
        """The newest samples are of a server without them."""
        self._server_before = self._memory("server")

    def begin(self, generator_robots: int) -> None:
        """The newest samples are the first of what counts; all robots are there. `generator_robots`: bytes
        that the generator holds for them."""
        self._rows.clear()
        self._first = dict(self._last)
        self._of_robots = {
            "server": self._memory("server") - self._server_before,
            "generator": generator_robots,
        }

    def end(self) -> None:
        """What comes after the newest samples does not count."""
        self._final = dict(self._last)

    def _memory(self, side: str) -> int:
        return sum(getattr(each, side).memory for each in self._last.values())

    def frame(self) -> pl.DataFrame:
        """A row for each node and sample."""
        return pl.DataFrame(self._rows, COLUMNS, orient="row")

    def figures(self, robots: int) -> UsageFigures | None:
        """None without samples."""
        frame = self.frame()
        if frame.is_empty():
            return None
        return UsageFigures(
            self._side("server", frame, robots),
            self._side("generator", frame, robots),
            [
                NodeFigures(
                    node,
                    self._last[node].cores,
                    self._cores(node, lambda each: each.busy_s),
                    round(max(rows["memory_mib"]), 1),
                )
                for (node,), rows in frame.group_by("node", maintain_order=True)
            ],
        )

    def _cores(self, node: str, cpu_s: Callable[[NodeUsage], float]) -> float:
        """In use on average, from the beginning to the end."""
        first, final = self._first.get(node), (self._final or self._last).get(node)
        if first is None or final is None or final.at_s <= first.at_s:
            return 0.0
        return round((cpu_s(final) - cpu_s(first)) / (final.at_s - first.at_s), 3)

    def _side(self, side: str, frame: pl.DataFrame, robots: int) -> SideFigures | None:
        if not self._most[side]:
            return None
        memory = frame.group_by("at_s", maintain_order=True).agg(pl.col(f"{side}_mib").sum())
        mib = memory[f"{side}_mib"].round(1).to_list()
        return SideFigures(
            processes=self._most[side],
            cpu_cores=round(sum(self._cores(node, attrgetter(f"{side}.cpu_s")) for node in self._last), 3),
            memory_mib_first=mib[0],
            memory_mib_last=mib[-1],
            memory_mib_max=max(mib),
            kib_per_robot=round(self._of_robots[side] / KIB / robots, 2) if robots >= LEAST_ROBOTS else None,
        )
