"""Sweeps: what they go over, what is kept of them, and that they can be taken up again."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from fleet.errors import Misuse, Unavailable
from simulators.queue import experiment
from simulators.queue.experiment import Ask, Point, Spread, Sweep, asks_of, in_turn
from simulators.queue.grid import MOST_POINTS, Grid, grid_of, grid_written
from simulators.queue.sweep_folder import SweepFolder
from simulators.queue.variation import Value, value_of, varied
from simulators.scenario import Scenario
from simulators.scenario_file import scenario_of

YARD = """\
name: yard
seed: 3
duration: 40s
fleets:
  arms: {count: 1, heartbeats: {interval: 60s}}
  carts: {count: 3, heartbeats: {interval: 60s}, speed: 2.0}
jobs:
  arrivals: {kind: poisson, rate: 2}
  classes:
    weld: {service: {kind: exponential, mean: 1s}, patience: 9s}
"""
OVER = {"robots": [2, 4], "load": [0.5, 0.8]}


def yard(more: str = "") -> Scenario:
    return scenario_of((YARD + more).encode(), "yard.yaml")


def swept(
    over: dict[str, Any] | None = None, scenario: Scenario | None = None, replications: int = 2
) -> Sweep:
    grid = grid_of(over or OVER)
    return Sweep(scenario=scenario or yard(), folder=Path(), grid=grid, replications=replications)


# -- values and axes


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("10", 10),
        ("-1", -1),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        (" .5 ", 0.5),
        ("true", True),
        ("null", None),
        ("fifo", "fifo"),
        ("1_000", "1_000"),
        ("2 min", "2 min"),
    ],
)
def test_a_value_is_what_it_looks_like(written: str, value: Value) -> None:
    made = value_of(written)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("robots=10:100:30", (10, 40, 70, 100)),
        ("robots=1:6:2", (1, 3, 5)),
        ("robots=3:1:-1", (3, 2, 1)),
        ("robots=5:5:1", (5,)),
        ("load=0.1:0.3:0.1", (0.1, 0.2, 0.3)),
        ("load=0.5:2:0.5", (0.5, 1.0, 1.5, 2.0)),
        ("robots=1,2,10:30:10", (1, 2, 10, 20, 30)),
        ("queue.discipline=fifo, lifo", ("fifo", "lifo")),
    ],
)
def test_an_axis_is_a_list_or_a_range_with_its_end(written: str, values: tuple[Value, ...]) -> None:
    [axis] = grid_written([written]).axes
    assert axis.values == values
    assert list(map(type, axis.values)) == list(map(type, values))


def test_a_grid_is_every_combination_and_the_last_axis_goes_fastest() -> None:
    points = list(grid_written(["robots=1,2", "load=0.5,0.8"]).points())
    assert points == [
        {"robots": 1, "load": 0.5},
        {"robots": 1, "load": 0.8},
        {"robots": 2, "load": 0.5},
        {"robots": 2, "load": 0.8},
    ]
    assert grid_of({"robots": range(1, 3), "load": "0.5,0.8"}) == grid_written(["robots=1,2", "load=0.5,0.8"])


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ([], "one axis at least"),
        (["robots"], "an axis is a name and values"),
        (["=1,2"], "an axis is a name and values"),
        (["robots="], "robots: there is no value"),
        (["robots=,"], "robots: there is no value"),
        (["robots=1:3:0"], "robots=1:3:0: no step of 0 leads from 1 to 3"),
        (["robots=3:1:1"], "no step of 1 leads from 3 to 1"),
        (["robots=1:3"], "start:stop:step"),
        (["robots=1:nan:1"], "start:stop:step"),
        (["robots=a:b:c"], "start:stop:step"),
        (["load=nan"], "load=nan: a value is a number or a word"),
        (["load=0.5,-Infinity"], "load=-Infinity: a value"),
        (["robots=1,2,1"], "robots: one of the values is there twice"),
        (["robots=1,2", "robots=3"], "one of the axes is there twice"),
        (["robots=1:1000000000:1"], "more than 10,000 values"),
        (["robots=1:101:1", "seed=1:100:1"], "these are 10,100 points; a sweep has 10,000 at most"),
    ],
)
def test_an_axis_that_makes_no_sense_is_refused(over: list[str], says: str) -> None:
    with pytest.raises(Misuse, match=says):
        grid_written(over)


@pytest.mark.parametrize("values", [5, [[1]], [float("inf")], [object()], range(MOST_POINTS + 1)])
def test_values_that_no_field_has_are_refused(values: Any) -> None:
    with pytest.raises(Misuse, match="robots"):
        grid_of({"robots": values})


# -- what is varied


def test_robots_load_and_duration_are_of_the_whole_and_the_load_comes_last() -> None:
    made = varied(yard(), {"load": 0.7, "robots": 8, "duration": "20s"})
    assert [fleet.count for fleet in made.fleets.values()] == [2, 6]
    assert made.lasts_s == 20.0
    assert made.jobs is not None
    assert made.jobs.arrivals.rate == pytest.approx(0.7 * (2 + 6 * 2.0))  # type: ignore[union-attr]


def test_any_field_is_varied_by_its_path_and_the_rest_stays() -> None:
    changes = {"fleets.carts.speed": 3, "seed": 9, "queue.discipline": "lifo", "queue.capacity": 5}
    made = varied(yard(), changes)
    assert (made.fleets["carts"].speed, made.seed) == (3.0, 9)
    assert (made.queue.discipline, made.queue.capacity) == ("lifo", 5)
    assert varied(made, {"fleets.carts.speed": 2.0, "seed": 3, "queue.discipline": "production"}) == varied(
        yard(), {"queue.capacity": 5}
    )


def test_fields_that_are_sound_only_together_are_changed_together() -> None:
    aged = varied(yard(), {"queue.aging": "5s"})
    assert varied(aged, {"queue.discipline": "fifo", "queue.aging": None}).queue.discipline == "fifo"
    with pytest.raises(Misuse, match=r"queue\.discipline=fifo: queue: `aging` goes with"):
        varied(aged, {"queue.discipline": "fifo"})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("robots", 1.5, "robots=1.5: robots are counted in whole numbers"),
        ("robots", 1, "robots=1: the scenario yard takes 2 to"),
        ("load", 0, "load=0: a load is above 0"),
        ("load", float("nan"), "load=nan: this is no number"),
        ("load", "much", "load=much: a load is a number"),
        ("duration", 20, "duration=20: duration: a duration is a number and a unit"),
        ("duration", "0s", "duration=0s: this must take longer"),
        ("seed", -1, "seed=-1: seed: Input should be greater than or equal to 0"),
        ("sped", 1, "sped=1: sped: there is no 'sped' here; there is duration, robots, load, name"),
        ("fleets.legs.speed", 1, "there is no 'legs' here; there is arms, carts"),
        ("fleets.arms.sped", 1, "there is no 'sped' here; there is count"),
        ("fleets.arms.speed.x", 1, "there is no 'x' in a value"),
        ("fleets.arms.breakdowns.up", "1s", "there is no 'up' in what the scenario does not have"),
        ("stages.0.lasts", "1s", "among these 0"),
        ("fleets.arms.speed", "fast", "fleets.arms.speed=fast: fleets.arms.speed: Input should be"),
        ("queue.discipline", "first", "queue.discipline: Input should be 'production', 'fifo'"),
        ("jobs.arrivals", 3, "jobs.arrivals=3: jobs.arrivals: Input should be"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_by_its_name(name: str, value: Value, says: str) -> None:
    with pytest.raises(Misuse) as error:
        varied(yard(), {name: value})
    assert says in error.value.detail


def test_a_sweep_is_refused_before_anything_is_played() -> None:
    with pytest.raises(Misuse, match="robots=4, load=-1: a load is above 0"):
        asks_of(swept({"robots": [4], "load": [0.5, -1]}))
    with pytest.raises(Misuse, match="two replications"):
        asks_of(swept(replications=1))


# -- played


def backwards(function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
    """As if the last were done first, elsewhere."""
    for number in reversed(range(len(items))):
        [(_, made)] = in_turn(function, [items[number]])
        yield number, made


def stops_after(points: int) -> Spread:
    def spread(function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        yield from in_turn(function, items[:points])
        raise KeyboardInterrupt

    return spread


def play(folder: Path, sweep: Sweep, spread: Spread = in_turn, version: str = "1") -> pl.DataFrame:
    kept = SweepFolder(folder, sweep, version)
    return kept.finish(experiment.run(asks_of(sweep), spread, kept.known(), kept.keep))


def test_every_point_has_the_figures_of_a_run_of_its_own(tmp_path: Path) -> None:
    frame = play(tmp_path, swept())
    assert frame.columns == ["robots", "load", "metric", "estimate", "low", "high", "theory", "z"]
    alone = experiment.lab.run(varied(yard(), {"robots": 4, "load": 0.5}), Path(), 2)
    point = frame.filter(robots=4, load=0.5)
    assert point["metric"].to_list() == list(alone.metrics)
    assert point["estimate"].to_list() == [each.estimate for each in alone.metrics.values()]
    assert pl.read_parquet(tmp_path / "points.parquet").equals(frame)


def test_the_order_in_which_points_are_done_changes_no_bit(tmp_path: Path) -> None:
    play(tmp_path / "one", swept())
    play(tmp_path / "other", swept(), backwards)
    written = [(tmp_path / name / "points.parquet").read_bytes() for name in ("one", "other")]
    assert written[0] == written[1]


def test_a_sweep_that_was_interrupted_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    play(tmp_path / "whole", swept())
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "cut", swept(), stops_after(3))
    assert not (tmp_path / "cut" / "points.parquet").exists()
    played: list[Ask] = []

    def watched(function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        played.extend(items)
        return in_turn(function, items)

    play(tmp_path / "cut", swept(), watched)
    assert [ask.number for ask in played] == [3]
    written = [(tmp_path / name / "points.parquet").read_bytes() for name in ("whole", "cut")]
    assert written[0] == written[1]
    about = json.loads((tmp_path / "cut" / "sweep.json").read_bytes())
    assert about["seconds"] > 0
    assert about["axes"] == OVER
    assert Scenario.model_validate(about["scenario"]) == yard()


def test_a_point_that_was_torn_is_played_again(tmp_path: Path) -> None:
    frame = play(tmp_path, swept())
    torn = tmp_path / "points" / "00002.json"
    torn.write_bytes(torn.read_bytes()[:100])
    assert play(tmp_path, swept()).equals(frame)


@pytest.mark.parametrize(
    ("other", "version", "differs"),
    [
        (swept({"robots": [2, 4], "load": [0.5, 0.9]}), "1", "axes"),
        (swept({"robots": [2, 4], "load": [0.5, 1]}), "1", "axes"),
        (swept(replications=3), "1", "replications"),
        (swept(scenario=varied(yard(), {"seed": 4})), "1", "seed, scenario"),
        (swept(), "2", "version"),
    ],
)
def test_the_folder_of_another_sweep_is_refused(
    tmp_path: Path, other: Sweep, version: str, differs: str
) -> None:
    SweepFolder(tmp_path, swept(), "1")
    with pytest.raises(Misuse, match=rf"holds another sweep \({differs} differ\)"):
        SweepFolder(tmp_path, other, version)


def test_the_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(Misuse, match="no sweep"):
        SweepFolder(tmp_path, swept(), "1")
    with pytest.raises(Misuse, match="cannot be written to"):
        SweepFolder(tmp_path / "thesis.txt", swept(), "1")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_trace_that_was_changed_makes_another_sweep(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("1\n2\n")
    scenario = scenario_of(
        YARD.replace("{kind: poisson, rate: 2}", "{kind: trace, file: times.csv}").encode(), "yard.yaml"
    )
    sweep = msgspec.structs.replace(swept({"robots": [2, 4]}, scenario), folder=tmp_path)
    SweepFolder(tmp_path / "kept", sweep, "1")
    (tmp_path / "times.csv").write_text("1\n3\n")
    with pytest.raises(Misuse, match="trace differ"):
        SweepFolder(tmp_path / "kept", sweep, "1")


def test_points_that_fail_do_not_lose_the_others() -> None:
    def fails(ask: Ask) -> Point:
        if ask.changes["robots"] == 2:
            raise Misuse("two are not enough") if ask.changes["load"] == 0.5 else OSError("no more memory")
        return experiment.play_point(ask)

    def spread(function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[tuple[int, Any]]:
        return in_turn(fails, items)

    kept: list[Point] = []
    with pytest.raises(Unavailable) as error:
        experiment.run(asks_of(swept()), spread, keep=kept.append)
    assert error.value.detail == (
        "2 of 4 points failed: robots=2, load=0.5: two are not enough; "
        "robots=2, load=0.8: OSError: no more memory"
    )
    assert [point.number for point in kept] == [2, 3]


def test_columns_have_the_kind_of_their_values() -> None:
    kinds = {"a": [1, 2], "b": [1, 2.5], "c": ["x", 1], "d": [True, False], "e": [None, 1.5]}
    frame = experiment.frame_of(Grid(grid_of(kinds).axes), [])
    assert frame.schema["a"] == pl.Int64
    assert frame.schema["b"] == frame.schema["e"] == pl.Float64
    assert (frame.schema["c"], frame.schema["d"]) == (pl.String, pl.Boolean)
