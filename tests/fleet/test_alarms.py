"""Alarms against a plain dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.alarms import Alarms

KEYS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(st.tuples(st.sampled_from(["set", "stop", "pass"]), KEYS, st.integers(0, 20)), max_size=60)


@given(STEPS)
def test_a_key_rings_once_at_its_earliest_time(steps: list[tuple[str, str, int]]) -> None:
    alarms, set_to, now = Alarms(), dict[str, int](), 0
    for step, key, number in steps:
        if step == "set":
            alarms.set_by(key, now + number)
            set_to[key] = min(now + number, set_to.get(key, now + number))
        elif step == "stop":
            alarms.stop(key)
            set_to.pop(key, None)
        else:
            now += number
            rung = alarms.take_ringing(now)
            assert sorted(rung) == sorted(key for key, at in set_to.items() if at <= now)
            assert [set_to[key] for key in rung] == sorted(set_to[key] for key in rung)
            set_to = {key: at for key, at in set_to.items() if key not in rung}
        assert len(alarms) == len(set_to)


def test_alarms_that_were_stopped_take_no_room() -> None:
    alarms = Alarms()
    for number in range(10_000):
        alarms.set_by(str(number), number)
        alarms.stop(str(number))
    assert len(alarms._heap) <= 1_026
