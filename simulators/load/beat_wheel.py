"""When each robot of a fleet beats, and with what figures: arrays, no object, task or timer per robot."""

from __future__ import annotations

import msgspec
import numpy as np

from simulators.draws import Rng
from simulators.load import beats
from simulators.load.beats import Floats, Ints
from simulators.scenario import Fleet, Gauge

PULL = 0.1  # of a gauge towards its mean, at each beat
NEVER = np.iinfo(np.int64).max


class Due(msgspec.Struct, frozen=True):
    """Beats to be sent now, those of a robot in order: of which robots, each with its number, the time when
    it was due, and its figures."""

    robots: Ints
    numbers: Ints
    due_us: Ints
    cpu_percent: Floats
    memory_mb: Floats

    def __len__(self) -> int:
        return len(self.robots)


class BeatWheel:
    """An open model: a beat that could not be sent in time does not shift those after it. Times are in
    microseconds of the caller's clock."""

    def __init__(self, fleet: Fleet, rng: Rng) -> None:
        self._interval_us = fleet.heartbeats.interval * 1e6
        self._jitter = fleet.heartbeats.jitter
        self._rng = rng
        self._due = np.full(fleet.count, NEVER, dtype=np.int64)
        self._planned = np.zeros(fleet.count, dtype=np.float64)
        self.numbers = np.zeros(fleet.count, dtype=np.int64)
        self._cpu = _Wander(fleet.cpu_percent or Gauge(mean=20.0, spread=5.0), fleet.count, rng)
        self._memory = _Wander(fleet.memory_mb or Gauge(mean=512.0, spread=32.0), fleet.count, rng)

    def begin(self, robot: int, now_us: int) -> None:
        """At a random phase: a fleet that connects together must not beat together."""
        self._planned[robot] = now_us + self._interval_us * self._rng.random()
        self._due[robot] = int(self._planned[robot])

    def runs(self, robot: int) -> bool:
        return bool(self._due[robot] != NEVER)

    def end(self, robot: int) -> None:
        self._due[robot] = NEVER

    def end_all(self) -> None:
        self._due[:] = NEVER

    def tick(self, now_us: int) -> Due:
        """What is due by now. A robot that missed several beats, because nobody ticked, sends all of them."""
        parts = []
        while len(robots := (self._due <= now_us).nonzero()[0]):
            parts.append(self._beat(robots))
        return parts[0] if len(parts) == 1 else _due(parts)

    def _beat(self, robots: Ints) -> Due:
        due = self._due[robots]
        numbers = self.numbers[robots] + 1
        self.numbers[robots] = numbers
        # About a plan without jitter: the rate is exact, and jitter does not add up.
        planned = self._planned[robots] + self._interval_us
        self._planned[robots] = planned
        wobble = (self._jitter * self._interval_us) * (self._rng.random(len(robots)) - 0.5)
        self._due[robots] = np.maximum(due + 1, (planned + wobble).astype(np.int64))
        return Due(
            robots,
            numbers,
            due,
            beats.cpu_percent(self._cpu.step(robots), numbers),
            beats.memory_mb(self._memory.step(robots), due),
        )


def _due(parts: list[Due]) -> Due:
    if not parts:
        none, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Due(none, none, none, nothing, nothing)
    return Due(*(np.concatenate([getattr(part, name) for part in parts]) for name in Due.__struct_fields__))


class _Wander:
    """A random walk that is drawn back to the mean of its gauge, with the gauge's spread."""

    def __init__(self, gauge: Gauge, count: int, rng: Rng) -> None:
        self._mean = gauge.mean
        self._step = gauge.spread * np.sqrt(1 - (1 - PULL) ** 2)
        self._rng = rng
        self._values = gauge.mean + gauge.spread * rng.standard_normal(count)

    def step(self, which: Ints) -> Floats:
        values = self._values[which]
        values += PULL * (self._mean - values) + self._step * self._rng.standard_normal(len(which))
        self._values[which] = values
        return np.asarray(np.maximum(values, 0.0))
