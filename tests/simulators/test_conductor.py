"""A whole scenario against a real server, and what is said of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import World

from fleet.errors import Misuse, Unavailable
from simulators.load.conductor import Conductor, Moment, Performance
from simulators.load.outcome import Outcome
from simulators.load.venue import HarmActor, Venue
from simulators.scenario import ActorFault
from simulators.scenario_file import scenario_of

SMALL = """\
name: small
duration: 1s
fleets:
  hall: {count: 6, reads: 200ms, heartbeats: {interval: 200ms}}
  yard: {count: 3, heartbeats: {interval: 100ms}, max_concurrent_jobs: 2}
jobs:
  arrivals: {kind: constant, rate: 40}
  classes:
    weld: {service: {kind: constant, value: 20ms}, progress_per_job: 1}
watchers:
  robots: {endpoint: robot-status, count: 3}
  jobs: {endpoint: live-jobs, count: 2}
  depth: {endpoint: queue-metrics, count: 1}
  stream: {endpoint: metrics-stream, count: 1}
thresholds:
  events_lost: 0
  jobs_lost: 0
"""


@pytest.fixture(autouse=True)
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "simulators.load.outcome.MOST_LAG_MS", 60_000.0
    )  # of a machine that is not ours alone
    monkeypatch.setattr("simulators.load.conductor.SETTLE_S", 0.2)
    monkeypatch.setattr("simulators.load.conductor.EVERY_S", 0.1)


def venue(port: int, token: str, harm_actor: HarmActor | None = None) -> Venue:
    """Everybody is an object here."""
    return Venue(
        f"http://127.0.0.1:{port}",
        token,
        lambda name, role, *args: role(*args),
        lambda name, role, *args: [role(*args)],
        harm_actor=harm_actor,
    )


async def perform(world: World, text: str = SMALL, **given: Any) -> tuple[Performance, list[Moment]]:
    moments: list[Moment] = []
    conductor = Conductor(
        scenario_of(text.encode(), "small.yaml"),
        Path(),
        venue(
            given.get("port", world.port),
            given.get("token", world.token("operator")),
            given.get("harm_actor"),
        ),
        moments.append,
        drain_s=10.0,
        version="0.0.0-test",
    )
    return await conductor.perform(given.get("stop", asyncio.Event())), moments


async def outcome_of(world: World, text: str = SMALL) -> Outcome:
    return (await perform(world, text))[0].outcome


async def test_a_quiet_run_loses_nothing_and_says_what_it_did(world: World) -> None:
    performance, moments = await perform(world)
    outcome = performance.outcome
    assert (outcome.invalid_because, outcome.incomplete_because) == ([], [])
    assert (outcome.lost, outcome.duplicated, outcome.reordered, outcome.in_flight) == (0, 0, 0, 0)
    assert outcome.beats.offered == outcome.beats.sent <= outcome.sent  # which began before
    assert outcome.beats.sent == pytest.approx(6 * 5 + 3 * 10, abs=2 * 9)
    assert outcome.jobs is not None
    assert (outcome.jobs.offered, outcome.jobs.accepted, outcome.jobs.completed) == (40, 40, 40)
    measured = {"heartbeat_to_watcher", "job_to_watcher", "submit", "grant", "life", "read"}
    assert set(outcome.latencies_ms) == measured
    assert outcome.robots_refused == {}
    assert outcome.exit_code == 0
    assert {moment.phase for moment in moments} == {"connecting", "settling", "running", "draining"}


def changed(**parts: str) -> str:
    text = SMALL
    for old, new in parts.items():
        assert old in text
        text = text.replace(old, new)
    return text


def _longer(text: str) -> str:
    """Who lost a connection comes back within a second."""
    return text.replace("duration: 500ms", "duration: 1500ms")


QUIET = """\
name: quiet
duration: 500ms
fleets:
  hall: {count: 10, heartbeats: {interval: 100ms}}
watchers:
"""


async def test_who_resumes_misses_nothing_and_who_comes_back_plainly_is_not_judged(world: World) -> None:
    watchers = """\
  resuming: {endpoint: robot-status, count: 2, behaviour: resuming, every: 200ms}
  fresh: {endpoint: robot-status, count: 3, behaviour: reconnecting, every: 200ms}
"""
    made = await outcome_of(world, QUIET + watchers)
    assert (made.lost, made.duplicated, made.reordered, made.gaps) == (0, 0, 0, 0)
    assert made.watchers_late == 0


async def test_a_storm_takes_all_watchers_and_they_come_back(world: World) -> None:
    text = (
        QUIET
        + "  robots: {endpoint: robot-status, count: 5}\nfaults:\n  - {kind: drop_watchers, at: 200ms}\n"
    )
    performance, moments = await perform(world, _longer(text))
    assert performance.outcome.watchers_late == 5
    assert moments[-1].connected_watchers == 5


async def test_robots_that_vanish_leave_nothing_that_is_called_lost(world: World) -> None:
    text = QUIET + "  robots: {endpoint: robot-status, count: 2}\n"
    text += "faults:\n  - {kind: kill_robots, at: 100ms, fleet: hall, share: 0.5, lasts: 100ms}\n"
    text += "  - {kind: kill_robots, at: 350ms, fleet: hall, share: 0.3}\n"
    performance, moments = await perform(world, _longer(text))
    made = performance.outcome
    assert made.robot_reconnects >= 2
    assert moments[-1].connected_robots <= 7
    assert (made.lost, made.duplicated, made.reordered) == (0, 0, 0)


async def test_garbage_and_slowness_cost_those_who_do_it(world: World) -> None:
    watchers = """\
  robots: {endpoint: robot-status, count: 2}
  noise: {endpoint: robot-status, count: 2, behaviour: garbage}
  slow: {endpoint: robot-status, count: 1, behaviour: slow, every: 300ms}
"""
    made = await outcome_of(world, QUIET + watchers)
    assert (made.lost, made.duplicated) == (0, 0)


# -- what goes wrong


async def test_a_server_that_is_not_there_is_told_before_anything_begins(
    world: World, unused_tcp_port: int
) -> None:
    with pytest.raises(Unavailable, match=r"no server answers at .+: start one, or use --serve"):
        await perform(world, port=unused_tcp_port)


@pytest.mark.parametrize("role", ["", "viewer"])
async def test_a_token_that_will_not_do_is_told_before_anything_begins(world: World, role: str) -> None:
    token = world.token(role) if role else "nonsense"
    with pytest.raises(Misuse, match=r"does not take this token .+operator"):
        await perform(world, token=token)


RATE = "{kind: constant, rate: 40}"
KILL = "{kind: kill_actor, at: 500ms, actor: registry}"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "interval: 200ms}",
            "interval: 200ms}, drive: gateways, network: {loss: 0.1}",
            "fleets.hall.network",
        ),
        (
            "thresholds:",
            "faults:\n  - {kind: kill_actor, at: 500ms, actor: registry}\nthresholds:",
            "--serve",
        ),
        (RATE, "{kind: trace, file: nowhere.csv}", "nowhere.csv cannot be read"),
    ],
)
async def test_what_is_not_done_is_refused_and_not_left_out(
    world: World, old: str, new: str, says: str
) -> None:
    with pytest.raises(Misuse, match=says):
        await perform(world, changed(**{old: new}))


async def test_robots_keep_their_jobs_until_these_are_done(world: World) -> None:
    """Their server takes a robot that has not beaten for a second for one that is gone."""
    text = changed(**{RATE: "{kind: constant, rate: 1}", "value: 20ms": "value: 2s"})
    performance, moments = await perform(world, text)
    assert performance.outcome.jobs is not None
    assert (performance.outcome.jobs.accepted, performance.outcome.jobs.completed) == (1, 1)
    drained = [moment for moment in moments if moment.phase == "draining" and moment.jobs_open]
    assert len(drained) > 5
    assert {moment.busy for moment in drained[1:]} == {1}


async def test_a_run_that_is_interrupted_keeps_what_it_measured(world: World) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(1.7, stop.set)
    performance, _ = await perform(world, changed(**{"duration: 1s": "duration: 1 h"}), stop=stop)
    made = performance.outcome
    assert (made.complete, made.incomplete_because, made.exit_code) == (False, ["it was interrupted"], 2)
    assert made.sent > 0
    assert len(performance.seconds) >= 1


async def test_a_server_that_dies_half_way_ends_the_run_with_what_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulators.load.conductor.GONE_S", 0.5)
    monkeypatch.setattr("simulators.load.server.TIMEOUT_S", 0.5)
    asyncio.get_running_loop().call_later(0.7, world.server.stop)
    performance, _ = await perform(world, changed(**{"duration: 1s": "duration: 1 h"}))
    made = performance.outcome
    [reason] = made.incomplete_because
    assert "the server did not answer for" in reason
    assert made.exit_code == 2
    assert made.jobs is not None
    assert made.jobs.lost == 0  # nobody can say


async def test_a_generator_that_starves_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shares its process with what tells of it here, which takes all the time there is."""
    monkeypatch.setattr("simulators.load.outcome.MOST_LAG_MS", 100.0)
    conductor = Conductor(
        scenario_of((QUIET + "  robots: {endpoint: robot-status, count: 1}\n").encode(), "quiet.yaml"),
        Path(),
        venue(world.port, world.token("operator")),
        lambda moment: time.sleep(0.15),
        drain_s=1.0,
        version="0.0.0-test",
    )
    made = (await conductor.perform(asyncio.Event())).outcome
    assert (made.valid, made.exit_code) == (False, 2)
    assert "the generator was late itself" in made.invalid_because[0]


async def refuse_to_harm(fault: ActorFault) -> None:
    raise ValueError("no actor of that name")


async def test_a_fault_that_cannot_be_made_leaves_the_run_incomplete(world: World) -> None:
    faults = "faults:\n  - {kind: kill_actor, at: 100ms, actor: registry}\nthresholds:"
    made = (await perform(world, changed(**{"thresholds:": faults}), harm_actor=refuse_to_harm))[0].outcome
    [reason] = made.incomplete_because
    assert reason == "the fault kill_actor at 0.1 s could not be made (ValueError: no actor of that name)"
    assert made.exit_code == 2
    assert made.jobs is not None
    assert made.jobs.unfinished == 0  # it went on to its end


# -- behind gateways


async def test_robots_behind_gateways_beat_work_and_are_heard_like_others(world: World) -> None:
    text = changed(**{"count: 6, ": "count: 6, drive: gateways, robots_per_gateway: 4, "})
    text = text.replace("watchers:", "watchers:\n  few: {endpoint: robot-status, count: 2, conflate: 50ms}")
    performance, moments = await perform(world, text)
    made = performance.outcome
    assert (made.invalid_because, made.incomplete_because) == ([], [])
    assert (made.lost, made.duplicated, made.reordered, made.in_flight) == (0, 0, 0, 0)
    assert made.jobs is not None
    assert (made.jobs.accepted, made.jobs.completed) == (40, 40)
    assert {"heartbeat_to_watcher", "heartbeat_to_conflated"} < set(made.latencies_ms)
    assert moments[-1].connected_robots == 9
    async with world.http() as http:
        robots = (await http.get("/robots?limit=500")).json()["robots"]
    assert sorted(robot["robot_id"] for robot in robots) == sorted(
        [f"load-hall-{n:03d}" for n in range(1, 7)] + [f"load-yard-{n:03d}" for n in range(1, 4)]
    )


# -- what robots do beside, and their network


async def test_a_poor_network_delays_and_loses_nothing_in_the_end(world: World) -> None:
    network = "network: {latency: {kind: constant, value: 150ms}}, "
    text = changed(**{"count: 6, ": f"count: 6, {network}", "  yard:": "  #", "rate: 40": "rate: 10"})
    poor = await outcome_of(world, text)
    assert (poor.lost, poor.duplicated, poor.reordered, poor.in_flight) == (0, 0, 0, 0)
    assert poor.latencies_ms["heartbeat_to_watcher"]["p50"] >= 149  # from when it was due
    assert poor.latencies_ms["life"]["p50"] >= 3 * 150 + 20  # grant, complete, ack
    assert poor.jobs is not None
    assert poor.jobs.completed == poor.jobs.accepted == 10


async def test_a_network_that_flaps_holds_what_was_said(world: World) -> None:
    up, down = "{kind: constant, value: 200ms}", "{kind: constant, value: 200ms}"
    network = f"network: {{flapping: {{up: {up}, down: {down}}}, loss: 0.05}}, "
    made = await outcome_of(world, changed(**{"count: 6, ": f"count: 6, {network}"}))
    assert (made.lost, made.duplicated, made.reordered) == (0, 0, 0)
    assert made.latencies_ms["heartbeat_to_watcher"]["max"] >= 150


async def test_users_of_a_closed_model_wait_for_the_end_of_their_jobs(world: World) -> None:
    closed = "{kind: closed, users: 3, think: {kind: constant, value: 50ms}}"
    made = await outcome_of(world, changed(**{RATE: closed}))
    assert made.jobs is not None
    assert made.jobs.offered == made.jobs.accepted == made.jobs.completed
    # Each user's round takes 50 ms of thinking and at least 20 ms of work.
    assert 3 <= made.jobs.offered <= 3 * (1_000 // 70 + 1)
    assert made.exit_code == 0
