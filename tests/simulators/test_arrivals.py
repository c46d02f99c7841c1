"""When jobs arrive: rates, stages and traces, by the seed alone."""

from __future__ import annotations

from itertools import pairwise
from math import pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from fleet.errors import Misuse
from simulators.job_draws import open_model
from simulators.scenario import Jobs, Segment

READ: TypeAdapter[Jobs] = TypeAdapter(Jobs)
WELD = {"service": {"kind": "constant", "value": "1s"}}
STEADY = [Segment(0.0, 1_000.0, 1.0, 1.0)]


def times(load: list[Segment] = STEADY, seed: int = 3, folder: Path = Path(), **written: Any) -> list[float]:
    jobs = READ.validate_python({"arrivals": written, "classes": {"weld": WELD, "carry": WELD}})
    _, blocks = open_model(jobs, load, seed, folder)
    return [at_ns / 1e9 for block in blocks for at_ns in block.tolist()]


def between(found: list[float], begins_s: float, ends_s: float) -> int:
    return sum(begins_s <= at_s < ends_s for at_s in found)


def near(expected: float) -> Any:
    """Within five standard deviations of a Poisson count."""
    return pytest.approx(expected, abs=5 * sqrt(expected))


def test_constant_arrivals_are_apart_by_the_rate() -> None:
    assert times([Segment(0.0, 2.0, 1.0, 1.0)], kind="constant", rate=4.0) == pytest.approx(
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    )


def test_constant_arrivals_follow_a_ramp_and_a_pause() -> None:
    load = [Segment(0.0, 10.0, 0.0, 1.0), Segment(10.0, 15.0, 0.0, 0.0), Segment(15.0, 17.0, 2.0, 2.0)]
    found = times(load, kind="constant", rate=2.0)
    # The load adds up to t^2 / 20 in the ramp.
    assert found[:10] == pytest.approx([sqrt(20 * number / 2) for number in range(10)])
    assert found[10:] == pytest.approx([15 + number / 4 for number in range(8)])


def test_poisson_arrivals_have_the_rate_and_its_spread() -> None:
    found = times(kind="poisson", rate=20.0)
    assert len(found) == near(20_000)
    gaps = np.diff([0.0, *found])
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(1.0, abs=0.06)


def test_poisson_arrivals_follow_the_stages() -> None:
    load = [Segment(0.0, 400.0, 0.0, 2.0), Segment(400.0, 500.0, 5.0, 5.0), Segment(500.0, 600.0, 0.0, 0.0)]
    found = times(load, kind="poisson", rate=10.0)
    assert between(found, 0, 200) == near(10 * 0.5 * 200)
    assert between(found, 200, 400) == near(10 * 1.5 * 200)
    assert between(found, 400, 500) == near(10 * 5 * 100)
    assert between(found, 500, 600) == 0


def test_sinusoid_arrivals_swing() -> None:
    found = times(kind="sinusoid", rate=50.0, amplitude=0.8, period="100s")
    phases = np.array(found) % 100
    rise = float(np.count_nonzero(phases < 50))
    assert rise == near(50 * 10 * (50 + 0.8 * 100 / pi))
    assert len(found) - rise == near(50 * 10 * (50 - 0.8 * 100 / pi))
    assert np.mean(np.sin(2 * pi * phases / 100)) == pytest.approx(0.4, abs=0.02)


def test_modulated_arrivals_have_the_mean_rate_and_come_in_bursts() -> None:
    found = times(kind="mmpp", rates=[40.0, 0.0], mean_stays=["2s", "6s"])
    assert len(found) == pytest.approx(10_000, rel=0.2)
    per_s = np.histogram(found, bins=1_000, range=(0, 1_000))[0]
    assert per_s.var() / per_s.mean() > 5  # 1 for Poisson
    assert np.count_nonzero(per_s == 0) > 400


def test_batches_come_together_in_all_sizes() -> None:
    found = times(kind="batches", rate=2.0, smallest=2, largest=4)
    sizes = np.unique(found, return_counts=True)[1]
    assert set(sizes) == {2, 3, 4}
    assert len(sizes) == near(2_000)
    assert sizes.mean() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    "written",
    [
        {"kind": "poisson", "rate": 5.0},
        {"kind": "renewal", "between": {"kind": "erlang", "phases": 3, "mean": "200ms"}},
        {"kind": "batches", "rate": 5.0, "smallest": 1, "largest": 9},
        {"kind": "mmpp", "rates": [9.0, 1.0], "mean_stays": ["2s", "6s"]},
        {"kind": "sinusoid", "rate": 5.0, "amplitude": 1.0, "period": "30s"},
    ],
    ids=lambda written: written["kind"],
)
def test_the_same_seed_gives_the_same_arrivals_in_order(written: dict[str, Any]) -> None:
    found = times(**written)
    assert found == times(**written)
    assert found != times(seed=4, **written)
    assert all(one <= other for one, other in pairwise(found))
    assert 0 <= found[0] <= found[-1] < 1_000


# -- traces


def test_a_trace_is_followed_up_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text("at_s,class\n0.5,weld\n0.5,weld\n\n7,carry\n1000,weld\nnonsense\n")
    assert times(folder=tmp_path, kind="trace", file="day.csv") == [0.5, 0.5, 7.0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1\nsoon\n", "line 2: 'soon' is no time"),
        ("2\n1\n", "line 2: '1' is no time in seconds that is not before the line above"),
        ("at\nnan\n", "line 2: 'nan' is no time"),
        ("-1\n", "line 1: '-1' is no time"),
        ("1\n-1\n", "line 2: '-1' is no time"),
        ("1\ninf\n", "line 2"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "day.csv").write_text(text)
    with pytest.raises(Misuse, match=says):
        times(folder=tmp_path, kind="trace", file="day.csv")


def test_a_trace_may_say_what_its_jobs_are(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text("at_s,class,robot,service_s\n1,carry,x,2.5\n3,weld,y,0.000000001\n")
    jobs = READ.validate_python(
        {"arrivals": {"kind": "trace", "file": "day.csv"}, "classes": {"weld": WELD, "carry": WELD}}
    )
    drawn = open_model(jobs, STEADY, 1, tmp_path)[0].of(1, 2)
    assert drawn.klass.tolist() == [1, 0]
    assert drawn.work_ns.tolist() == [2_500_000_000, 1]


def test_a_job_of_a_trace_takes_as_long_as_those_of_its_class(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text("at_s,class\n" + "1,weld\n1,carry\n" * 20)
    carry = {"service": {"kind": "constant", "value": "5s"}, "patience": "7s"}
    trace = {"kind": "trace", "file": "day.csv"}
    jobs = READ.validate_python({"arrivals": trace, "classes": {"weld": WELD, "carry": carry}})
    drawn = open_model(jobs, STEADY, 1, tmp_path)[0].of(1, 40)
    assert (drawn.work_ns / 1e9).tolist() == [1, 5] * 20
    assert (drawn.patience_ns == 7 * 10**9).tolist() == [False, True] * 20


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("at_s,class\n1,paint\n", "line 2: there is no class 'paint'; there is weld, carry"),
        ("at_s,class\n1\n", "line 2: there is no class ''"),
        ("at_s,service_s\n1,-1\n", "line 2: '-1' is no time in seconds"),
        ("at_s,service_s\n1\n", "line 2: '' is no time in seconds"),
        ("at_s,Service_S\n1,1e300\n", "line 2: '1e300' is no time in seconds"),
    ],
)
def test_what_a_trace_says_wrongly_of_a_job_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "day.csv").write_text(text)
    with pytest.raises(Misuse, match=says):
        times(folder=tmp_path, kind="trace", file="day.csv")


def test_a_trace_from_a_spreadsheet_has_its_first_job(tmp_path: Path) -> None:
    """It begins with a mark that says in which order its bytes are."""
    (tmp_path / "day.csv").write_bytes(b"\xef\xbb\xbf1\n2\n")
    assert times(folder=tmp_path, kind="trace", file="day.csv") == [1, 2]


def test_a_trace_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"cannot be read: .+No such file"):
        times(folder=tmp_path, kind="trace", file="day.csv")
    (tmp_path / "day.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Misuse, match="cannot be read"):
        times(folder=tmp_path, kind="trace", file="day.csv")


def test_closed_arrivals_have_no_times() -> None:
    with pytest.raises(Misuse, match="closed"):
        times(kind="closed", users=3, think={"kind": "constant", "value": "1s"})
