"""Scenario files: what is shipped is sound, and whatever is wrong is said with its line and field."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from textwrap import dedent

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from simulators.distributions import LONGEST_S, Distribution, Erlang, Exponential, seconds, written_s
from simulators.scenario import PoissonArrivals, Scenario, Segment, Threshold
from simulators.scenario_file import MAX_BYTES, ScenarioRefused, read_scenario, scenario_of

SHIPPED = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "scenario.schema.json").read_text())
SOUND = """\
name: yard
duration: 10s
fleets:
  small:
    count: 3
    heartbeats: {interval: 1s}
jobs:
  arrivals: {kind: poisson, rate: 2}
  classes:
    weld:
      service: {kind: exponential, mean: 500ms}
watchers:
  some: {endpoint: robot-status, count: 1}
"""


def refused(text: str | bytes) -> str:
    with pytest.raises(ScenarioRefused) as error:
        scenario_of(text if isinstance(text, bytes) else text.encode(), "yard.yaml")
    return error.value.detail


def sound(more: str = "", **changed: str) -> Scenario:
    text = SOUND + dedent(more)
    for old, new in changed.items():
        text = text.replace(old, new)
    return scenario_of(text.encode(), "yard.yaml")


# -- what is sound


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_are_sound(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.name == path.stem
    assert scenario.description
    assert scenario.thresholds


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_scenario_that_is_written_down_is_read_as_it_was(path: Path) -> None:
    scenario = read_scenario(path)
    assert Scenario.model_validate(json.loads(scenario.model_dump_json())) == scenario


@given(st.floats(0, LONGEST_S))
def test_a_duration_that_is_written_down_loses_nothing(duration_s: float) -> None:
    assert seconds(written_s(duration_s)) == duration_s


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_schema_of_editors_takes_what_we_take(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), SCHEMA)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("count: 3", "counts: 3"),
        ("rate: 2", "rate: -2"),
        ("interval: 1s", "interval: 1"),
        ("mean: 500ms", ""),
    ],
)
def test_the_schema_of_editors_refuses_what_we_refuse(old: str, new: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(SOUND.replace(old, new)), SCHEMA)


def test_the_scenarios_that_users_look_for_are_there() -> None:
    assert {path.stem for path in SHIPPED} == {
        "smoke",
        "gateways",
        "thousand-robots",
        "uipath-profile",
        "morning-peak",
        "flapping-network",
        "reconnect-storm",
        "noisy-neighbour",
        "soak",
        "ten-thousand",
        "one-robot",
    }


def test_a_scenario_says_how_much_will_happen() -> None:
    scenario = sound()
    assert (scenario.lasts_s, scenario.robots, scenario.heartbeats_per_s) == (10.0, 3, 3.0)
    assert scenario.jobs is not None
    assert scenario.jobs.arrivals == PoissonArrivals(kind="poisson", rate=2.0)
    assert scenario.jobs.classes["weld"].service == Exponential.model_construct(kind="exponential", mean=0.5)


@pytest.mark.parametrize(
    ("written", "value"),
    [("250ms", 0.25), ("2s", 2.0), ("1.5 min", 90.0), ("2h", 7_200.0), ("1d", 86_400.0), ("0s", 0.0)],
)
def test_durations_have_units(written: str, value: float) -> None:
    assert seconds(written) == pytest.approx(value)


@pytest.mark.parametrize(
    ("metric", "written", "threshold"),
    [
        ("grant_p99", '"< 100ms"', Threshold(comparison="<", value=100.0, unit="ms")),
        ("grant_p99", '"<=1.5s"', Threshold(comparison="<=", value=1_500.0, unit="ms")),
        ("jobs_per_s", '">= 20/s"', Threshold(comparison=">=", value=20.0, unit="/s")),
        ("jobs_lost", "0", Threshold(comparison="==", value=0.0)),
    ],
)
def test_thresholds_compare(metric: str, written: str, threshold: Threshold) -> None:
    scenario = sound(f"thresholds: {{{metric}: {written}}}\n")
    assert scenario.thresholds == {metric: threshold}


def test_stages_lead_from_load_to_load() -> None:
    stages = """\
        stages:
          - {kind: ramp, lasts: 10s, load: 2}
          - {kind: hold, lasts: 10s, load: 2}
          - {kind: spike, lasts: 5s, load: 8}
          - {kind: ramp, lasts: 10s, load: 0}
        """
    scenario = sound(stages, **{"duration: 10s\n": ""})
    assert scenario.lasts_s == 35.0
    assert scenario.load == [
        Segment(0, 10, 0, 2),
        Segment(10, 20, 2, 2),
        Segment(20, 25, 8, 8),
        Segment(25, 35, 2, 0),
    ]
    assert [scenario.load[3].load_at(at_s) for at_s in (25, 30, 35)] == [2, 1, 0]
    assert sound().load == [Segment(0, 10, 1, 1)]


@pytest.mark.parametrize(
    ("written", "mean_s"),
    [
        ("{kind: constant, value: 3s}", 3.0),
        ("{kind: erlang, phases: 4, mean: 2s}", 2.0),
        ("{kind: hyperexponential, means: [1s, 11s], probabilities: [0.9, 0.1]}", 2.0),
        ("{kind: lognormal, mean: 2s, scv: 4.0}", 2.0),
        ("{kind: uniform, low: 1s, high: 3s}", 2.0),
        ("{kind: empirical, values: [1s, 2s, 6s]}", 3.0),
        ("{kind: empirical, values: [1s, 5s], weights: [3, 1]}", 2.0),
    ],
)
def test_every_distribution_has_its_mean(written: str, mean_s: float) -> None:
    scenario = sound(**{"{kind: exponential, mean: 500ms}": written})
    assert scenario.jobs is not None
    service: Distribution = scenario.jobs.classes["weld"].service
    assert service.mean_s == pytest.approx(mean_s)


def test_anchors_may_be_used() -> None:
    both = "some: &some {endpoint: robot-status, count: 1}\n  more: {<<: *some, count: 2}"
    scenario = sound(**{"some: {endpoint: robot-status, count: 1}": both})
    assert [each.count for each in scenario.watchers.values()] == [1, 2]


# -- what is wrong


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("count: 3", "count: -3", "line 5, fleets.small.count: "),
        ("count: 3", "counts: 3", "line 5, fleets.small.counts: there is no such field"),
        ("count: 3", "capabilities: []", "line 4, fleets.small.count: this field is missing"),
        ("count: 3", "count: '3'", "line 5, fleets.small.count: "),
        ("count: 3", "count: yes", "line 5, fleets.small.count: "),
        ("count: 3", "count: 3\n    capabilities: [a b]", "line 6, fleets.small.capabilities: "),
        (
            "interval: 1s",
            "interval: 1",
            "line 6, fleets.small.heartbeats.interval: a duration is",
        ),
        ("interval: 1s", "interval: 0s", "line 6, fleets.small.heartbeats.interval: this must take longer"),
        ("rate: 2", "rate: -2", "line 8, jobs.arrivals.rate: "),
        ("rate: 2", "rate: .nan", "line 8, jobs.arrivals.rate: "),
        ("kind: poisson", "kind: fish", "line 8, jobs.arrivals: "),
        (", rate: 2", "", "line 8, jobs.arrivals.rate: this field is missing"),
        ("    weld:", "    We ld:", "line 10, jobs.classes.We ld: "),
        (
            "kind: exponential, mean: 500ms",
            "kind: hyperexponential, means: [1s, 2s], probabilities: [0.5, 0.6]",
            "line 11, jobs.classes.weld.service: probabilities must add up to 1, not 1.1",
        ),
        ("count: 1}", "count: 1, behaviour: slow}", "line 13, watchers.some: `every` goes with slow"),
        ("robot-status, ", "live-jobs, conflate: 1s, ", "line 13, watchers.some: only robot-status"),
        ("duration: 10s", "seed: 1", "line 1: it takes either a duration or stages"),
        (
            "name: yard",
            "name: yard\nfaults: [{kind: drop_watchers, at: 10s}]",
            "line 2, faults.0.at: this",
        ),
        (
            "name: yard",
            "name: yard\nfaults: [{kind: kill_robots, at: 1s, fleet: big, share: 0.5}]",
            "line 2, faults.0.fleet: there is no fleet 'big'",
        ),
        (
            "name: yard",
            "name: yard\nthresholds: {job_lost: 0}",
            "line 2, thresholds.job_lost: there",
        ),
        (
            "name: yard",
            "name: yard\nthresholds: {jobs_lost: few}",
            "line 2, thresholds.jobs_lost: a",
        ),
        ("name: yard", "name: yard\nthresholds: {grant_p99: 5}", "line 2, thresholds.grant_p99: this"),
        ("name: yard", "name: yard\nname: yard", "line 2: name is there twice"),
        ("name: yard", "name: [yard", "line 2: this is no YAML"),
        ("name: yard", "name: *yard", "line 1: this is no YAML: found undefined alias"),
        ("name: yard", "name: !!python/name:os.system yard", "line 1: this is no YAML"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_field(old: str, new: str, told: str) -> None:
    assert old in SOUND
    assert f"yard.yaml, {told}" in refused(SOUND.replace(old, new, 1))


def test_everything_that_is_wrong_is_said_at_once() -> None:
    text = SOUND.replace("count: 3", "count: 0").replace("rate: 2", "rate: 0")
    assert [line.split(":")[0] for line in refused(text).splitlines()] == [
        "yard.yaml, line 5, fleets.small.count",
        "yard.yaml, line 8, jobs.arrivals.rate",
    ]


def test_a_near_miss_is_told_what_it_missed() -> None:
    assert "there is jobs_lost" in refused(SOUND + "thresholds: {job_lost: 0}\n")


def test_many_errors_are_cut_short() -> None:
    told = refused(SOUND + "".join(f"x{n}: 1\n" for n in range(50))).splitlines()
    assert len(told) == 21
    assert told[-1] == "yard.yaml: and 30 more"


def test_an_alias_of_aliases_is_no_bomb() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    assert "this is too much, aliases included" in refused(bomb)


def test_what_contains_itself_is_refused() -> None:
    assert "line 1: this contains itself" in refused("a: &a [*a]\n")


def test_an_empty_file_is_refused() -> None:
    assert refused("# nothing\n") == "yard.yaml is empty"


def test_a_deep_file_is_refused() -> None:
    assert "yard.yaml" in refused("[" * 5_000)


def test_what_is_no_text_is_refused() -> None:
    assert refused(b"name: \xff\n").startswith("yard.yaml: this is no YAML")


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioRefused, match="cannot be read: No such file"):
        read_scenario(tmp_path / "none.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ScenarioRefused, match="a trace belongs into a file of its own"):
        read_scenario(large)


@given(st.text() | st.lists(st.sampled_from(SOUND.split(" ") + list("{}[]&*<!:\n"))).map(" ".join))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    with contextlib.suppress(ScenarioRefused):
        scenario_of(text.encode("utf-8", "surrogatepass"), "yard.yaml")


def test_a_part_of_a_scenario_cannot_be_changed() -> None:
    part = Erlang.model_validate({"kind": "erlang", "phases": 2, "mean": "1s"})
    with pytest.raises(ValueError, match="frozen"):
        part.phases = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "arrivals",
    ["{kind: trace, file: a.csv}", "{kind: closed, users: 3, think: {kind: constant, value: 1s}}"],
)
def test_stages_want_a_rate_to_change(arrivals: str) -> None:
    said = refused(
        SOUND.replace("duration: 10s\n", "stages:\n  - {kind: hold, lasts: 10s}\n").replace(
            "{kind: poisson, rate: 2}", arrivals
        )
    )
    assert said.startswith("yard.yaml, line 2, stages: ")
    assert "give a duration" in said
