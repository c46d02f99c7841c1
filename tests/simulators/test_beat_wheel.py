"""When robots beat: the rate, the phase, the order, and what becomes of beats that were missed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulators.draws import stream
from simulators.load.beat_wheel import BeatWheel, Due
from simulators.load.beats import numbers_of
from simulators.scenario import Fleet

SECOND_US = 1_000_000


def wheel(
    count: int = 100, seed: int = 1, interval: str = "1s", jitter: float = 0.1, **more: Any
) -> BeatWheel:
    fleet = Fleet(count=count, heartbeats={"interval": interval, "jitter": jitter}, **more)
    made = BeatWheel(fleet, stream(seed, "beats"))
    for robot in range(count):
        made.begin(robot, 0)
    return made


def ticked(wheel: BeatWheel, until_s: float, tick_us: int = 5_000) -> list[Due]:
    return [wheel.tick(now_us) for now_us in range(0, int(until_s * SECOND_US) + 1, tick_us)]


def test_every_robot_beats_once_an_interval_and_the_fleet_not_in_step() -> None:
    due = ticked(wheel(count=200), 10)
    counts = np.bincount(np.concatenate([each.robots for each in due]), minlength=200)
    assert set(counts) <= {9, 10, 11}
    assert counts.sum() == pytest.approx(2_000, abs=40)
    sizes = np.array([len(each) for each in due])
    assert sizes.max() <= 8  # of one on average


def test_a_beat_keeps_the_time_when_it_was_due_and_numbers_count() -> None:
    made = wheel(count=1, interval="100ms", jitter=0.0)
    first = int(made.tick(100_000).due_us[0])
    late = made.tick(first + 350_000)
    assert late.due_us.tolist() == [first + 100_000, first + 200_000, first + 300_000]
    assert late.numbers.tolist() == [2, 3, 4]
    assert numbers_of(late.cpu_percent).tolist() == [2, 3, 4]
    assert made.tick(first + 350_000).robots.tolist() == []


def test_what_a_robot_missed_is_sent_in_order() -> None:
    due = wheel(count=500).tick(3 * SECOND_US)
    assert len(due) > 1_000
    for robot in range(500):
        assert np.all(np.diff(due.due_us[due.robots == robot]) > 0)


def test_jitter_does_not_add_up() -> None:
    made = wheel(count=50, interval="100ms", jitter=1.0)
    due = made.tick(60 * SECOND_US)
    for robot in range(50):
        times = due.due_us[due.robots == robot]
        plan = times[0] + 100_000 * np.arange(len(times))
        assert np.abs(times - plan).max() <= 100_000
        assert np.all(np.diff(times) > 0)


def test_who_is_away_does_not_beat_and_goes_on_counting_afterwards() -> None:
    made = wheel(count=2)
    made.tick(2 * SECOND_US)
    before = made.numbers.copy()
    made.end(0)
    assert set(made.tick(10 * SECOND_US).robots.tolist()) == {1}
    made.begin(0, 10 * SECOND_US)
    back = made.tick(12 * SECOND_US)
    mine = back.robots == 0
    assert back.numbers[mine][0] == before[0] + 1
    assert back.due_us[mine][0] >= 10 * SECOND_US


def test_gauges_stay_about_their_means() -> None:
    made = wheel(
        count=300, cpu_percent={"mean": 40.0, "spread": 10.0}, memory_mb={"mean": 900.0, "spread": 50.0}
    )
    due = made.tick(60 * SECOND_US)
    assert due.cpu_percent.mean() == pytest.approx(40, abs=1)
    assert due.cpu_percent.std() == pytest.approx(10, rel=0.1)
    assert due.memory_mb.mean() == pytest.approx(900, abs=5)
    assert due.memory_mb.std() == pytest.approx(50, rel=0.1)


def test_the_same_seed_decides_the_same() -> None:
    one, same, other = (wheel(seed=seed).tick(5 * SECOND_US) for seed in (1, 1, 2))
    for name in Due.__struct_fields__:
        assert np.array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.due_us[:50], other.due_us[:50])
