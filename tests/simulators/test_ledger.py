"""What was lost, came twice or out of order, against what was injected; and beats told from each other."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.load import beats
from simulators.load.beats import MOST_NUMBER
from simulators.load.ledger import Latest, Ledger, Tally


def heard(ledger: Ledger, events: list[tuple[int, int]], batch: int = 3) -> None:
    for start in range(0, len(events), batch):
        some = events[start : start + batch]
        senders, numbers = np.array(some, dtype=np.int64).T
        ledger.hear(senders, numbers)


def judged(ledger: Ledger, sent: list[int], cuts: dict[int, list[int]] | None = None) -> Tally:
    return ledger.judge(np.array(sent, dtype=np.int64), cuts or {})


def test_all_in_order_is_all_there() -> None:
    ledger = Ledger(3)
    heard(ledger, [(0, 1), (1, 1), (0, 2), (2, 1), (0, 3), (1, 2)])
    assert judged(ledger, [3, 2, 1]) == Tally(received=6)
    assert ledger.last().tolist() == [3, 2, 1]


def test_what_never_came_is_lost_also_at_the_end_and_of_who_was_never_heard() -> None:
    ledger = Ledger(2)
    heard(ledger, [(0, 1), (0, 4)])
    assert judged(ledger, [6, 3]) == Tally(received=2, lost=2 + 2 + 3)


def test_what_comes_late_is_reordered_and_not_lost_and_twice_is_a_duplicate() -> None:
    ledger = Ledger(1)
    heard(ledger, [(0, 2), (0, 1), (0, 1), (0, 2), (0, 3)])
    assert judged(ledger, [3]) == Tally(received=5, duplicated=2, reordered=1)


def test_who_joins_late_misses_nothing_of_before() -> None:
    ledger = Ledger(3)
    heard(ledger, [(0, 1), (0, 5)])
    ledger.join_late()
    heard(ledger, [(0, 9), (0, 11), (1, 4)])
    assert judged(ledger, [11, 4, 7]) == Tally(received=5, lost=1)


def test_what_was_said_last_on_a_connection_that_ended_is_not_called_lost() -> None:
    ledger = Ledger(1)
    heard(ledger, [(0, 1), (0, 3), (0, 6), (0, 7)])
    # 2 was lost; 4 and 5 were the last before a cut; 8 and 9 before another.
    assert judged(ledger, [10], {0: [5, 9]}) == Tally(received=4, lost=2, in_flight=4)


@given(st.integers(0, 2**32), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.3), st.integers(1, 20))
def test_injected_faults_are_counted_exactly(
    seed: int, lose: float, double: float, delay: float, batch: int
) -> None:
    rng, sent = Random(seed), 40
    events: list[tuple[float, int, int]] = []
    lost = duplicated = 0
    for sender in range(4):
        for number in range(1, sent + 1):
            if rng.random() < lose:
                lost += 1
                continue
            at = number + (rng.uniform(2, 9) if rng.random() < delay else 0.0)
            events.append((at, sender, number))
            if rng.random() < double:
                duplicated += 1
                events.append((at + rng.uniform(0.01, 9), sender, number))
    came = [(sender, number) for _, sender, number in sorted(events)]
    ledger = Ledger(4)
    heard(ledger, came, batch) if came else None
    tally = judged(ledger, [sent] * 4)
    assert (tally.received, tally.lost, tally.duplicated) == (len(came), lost, duplicated)
    assert tally.reordered == first_times_late(came)


def first_times_late(came: list[tuple[int, int]]) -> int:
    highest: dict[int, int] = defaultdict(int)
    seen: set[tuple[int, int]] = set()
    late = 0
    for sender, number in came:
        late += (sender, number) not in seen and number < highest[sender]
        seen.add((sender, number))
        highest[sender] = max(highest[sender], number)
    return late


@pytest.mark.parametrize("due_us", [0, 1, 2**32 - 1, 2**32, 10**15 + 7])
@pytest.mark.parametrize("late_us", [-2_000_000, 0, 1, 250, 10**9])
@pytest.mark.parametrize("number", [0, 1, MOST_NUMBER])
def test_a_beat_carries_its_number_and_due_time_in_its_figures(
    due_us: int, late_us: int, number: int
) -> None:
    cpus, memories = np.array([0.0, 37.3, 99.99, 100.0]), np.array([0.0, 512.7, 1e5, 2.0**20 - 1])
    cpu = beats.cpu_percent(cpus, np.full(4, number))
    memory = beats.memory_mb(memories, np.full(4, due_us))
    assert beats.numbers_of(cpu).tolist() == [number] * 4
    assert beats.latencies_us(memory, np.full(4, due_us + late_us)).tolist() == [late_us] * 4
    assert np.all(np.abs(cpu - cpus) <= 1 / 16)
    assert np.all(cpu <= 100)
    assert np.all(np.abs(memory - memories) < 1)


def test_of_the_latest_only_the_last_must_come_and_in_order() -> None:
    latest = Latest(4)
    senders, numbers = np.array([(0, 2), (0, 5), (1, 1), (1, 1), (2, 4), (2, 3)], dtype=np.int64).T
    latest.hear(senders, numbers)
    tally = latest.judge(np.array([5, 3, 4, 0]), {})
    assert tally == Tally(received=6, lost=1, duplicated=1, reordered=1)
    assert latest.judge(np.array([5, 3, 4, 0]), {1: [3]}) == Tally(6, 0, 1, 1, in_flight=1)
