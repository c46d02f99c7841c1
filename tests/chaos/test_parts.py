"""The parts of a chaos run that can be wrong without anybody seeing it: its plan, and its judges."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from checkers.history import AnyRecord, Beat, Failed, FinalJob, Granted, Ok, Op, Recorder, ToStop, Unknown

from chaos.plan import FIRST, ActorFault, Plan, plan
from chaos.promises import (
    Clock,
    Done,
    LostLease,
    Outage,
    before,
    extended,
    recovery_promise,
    regrants,
    storm_promise,
)
from chaos.resources import Sample, growing, slope_of
from chaos.robot_log import RobotLog
from chaos.robots import Orphan, Period
from chaos.watchers import Stream
from fleet.job import JobStatus
from fleet.limits import SECOND
from fleet.messages import Ack, CancelJob, ClaimJobs, Complete, Error, GrantedJob, Heartbeat, JobToken
from fleet.wall_time import rfc3339

# -- what is decided


def decided(seed: int, seconds: float = 300.0) -> Plan:
    return plan(seed, seconds, every_s=10.0, lease_s=3.0)


def test_a_seed_decides_everything() -> None:
    assert decided(1) == decided(1)
    assert decided(1) != decided(2)


def test_even_a_short_run_does_the_worst_to_the_actors_and_ends_it_in_time() -> None:
    faults = decided(3, 60.0).actors
    assert {(fault.act, fault.actor) for fault in faults} == {card[:2] for card in FIRST}
    assert [fault.at_s for fault in faults] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert all(fault.at_s + fault.for_s <= 60.0 for fault in faults)


def test_a_long_run_does_everything_to_everybody() -> None:
    long = decided(3)
    assert len({(fault.act, fault.actor) for fault in long.actors}) == 7
    assert {fault.harm for fault in long.robots} == {"vanish", "leave", "freeze", "reset"}
    assert all(fault.for_s > 3.0 for fault in long.robots if fault.harm == "freeze")


# -- what watchers hear


def message(kind: str, offset: int | None, data: dict[str, Any], epoch: str | None = "e") -> str:
    return json.dumps({"type": kind, "epoch": epoch, "offset": offset, "data": data})


def event(offset: int, job_id: str = "j") -> str:
    return message("job_status_changed", offset, told(job_id))


def told(job_id: str = "j", status: str = "pending", at_ns: int = 0) -> dict[str, str]:
    return {"job_id": job_id, "status": status, "timestamp": rfc3339(at_ns)}


HELLO = message("hello", 4, {"recovered": False})
BACK = message("hello", 5, {"recovered": True})
LOST = message("hello", None, {"recovered": False}, None)
GAP = message("gap", None, {"reason": "expired"}, None)
PART = message("snapshot", None, {"items": [told("a")]}, None)
SNAPSHOT = message("snapshot", 9, {"items": [told("b")]})
REFUSED = message("error", None, {"code": "bad_since"}, None)


def heard(*sockets: list[str]) -> Stream:
    stream = Stream("live-jobs")
    for frames in sockets:
        stream.begin()
        for frame in frames:
            stream.hear(frame)
    return stream


@pytest.mark.parametrize(
    "sockets",
    [
        [[HELLO, event(5), event(6)]],
        [[HELLO, event(5)], [BACK, event(6)]],
        [[HELLO, event(5)], [LOST, GAP, PART, SNAPSHOT, event(10)]],
        [[HELLO, event(5), GAP, SNAPSHOT, event(10)]],
        [[HELLO, event(5)], [LOST, GAP, PART], [LOST, GAP, SNAPSHOT, event(10)]],
    ],
)
def test_a_stream_without_a_hole_is_found_to_be_one(sockets: list[list[str]]) -> None:
    assert heard(*sockets).holes == []


@pytest.mark.parametrize(
    ("sockets", "said"),
    [
        ([[HELLO, event(6)]], "event 6 after 4"),
        ([[HELLO, event(5), event(5)]], "event 5 after 5"),
        ([[HELLO, event(5)], [BACK, event(7)]], "event 7 after 5"),
        ([[HELLO, event(5), event(6)], [BACK]], "recovered at 5 where e:6"),
        ([[HELLO, event(5)], [LOST, event(9)]], "not recovered"),
        ([[HELLO, event(5), GAP, event(9)]], "no snapshot"),
        ([[HELLO, event(5), GAP, PART, event(9)]], "no snapshot"),
        ([[HELLO, event(5)], [REFUSED]], "was refused"),
    ],
)
def test_a_hole_that_was_kept_from_a_watcher_is_found(sockets: list[list[str]], said: str) -> None:
    [hole] = heard(*sockets).holes
    assert said in hole


def test_a_watcher_comes_back_to_the_place_after_what_it_heard() -> None:
    stream = heard([HELLO, event(5), GAP, PART])
    assert stream.begin() == "e:5"
    assert [each.data["job_id"] for each in stream.events] == ["j", "a"]


# -- what robots say


class Said:
    """A robot's log, and what it wrote."""

    def __init__(self) -> None:
        self.records: list[AnyRecord] = []
        self.log = RobotLog("r", Recorder(self.records.append))

    def beat(self, number: str, *job_ids: str) -> None:
        self.log.say(Heartbeat(id=number, jobs=[JobToken(job_id, 1) for job_id in job_ids]))

    def ends(self) -> list[Any]:
        return [record for record in self.records if isinstance(record, Ok | Failed | Unknown)]


def test_a_heartbeat_is_answered_with_the_stops_that_came_before_its_answer() -> None:
    said = Said()
    said.beat("1", "a", "b")
    said.log.hear(CancelJob(job_id="b"))
    said.log.hear(Ack(id="1"))
    assert [end.answer for end in said.ends()] == [ToStop(["b"])]


@pytest.mark.parametrize("later", [["a"], []])
def test_nobody_looks_at_the_answer_of_a_heartbeat_that_another_overtook(later: list[str]) -> None:
    said = Said()
    said.beat("1", "a")
    said.beat("2", *later)
    said.log.hear(Ack(id="1"))
    assert [end.answer for end in said.ends()] == [None]


def test_only_a_refusal_that_names_the_reason_says_that_nothing_happened() -> None:
    said = Said()
    for number in ("1", "2", "3"):
        said.log.say(Complete(id=number, job_id="j", token=1))
    said.log.hear(Error(id="1", code="unavailable", detail=""))
    said.log.hear(Error(id="2", code="stale_token", detail=""))
    said.log.lose()
    assert [type(end) for end in said.ends()] == [Unknown, Failed, Unknown]


def test_a_robot_holds_what_it_was_granted_until_it_says_the_end() -> None:
    said = Said()
    said.log.say(ClaimJobs(id="1", request_id="q"))
    said.log.hear(Ack(id="1", jobs=[GrantedJob(job_id="j", name="n", token=7, lease_ms=1, attempt=1)]))
    assert [type(end.answer) for end in said.ends()] == [Granted]
    assert said.log.held["j"].token == 7
    said.log.say(Complete(id="2", job_id="j", token=7))
    assert not said.log.held


# -- what was promised


OUT = [Outage(10 * SECOND, 15 * SECOND), Outage(17 * SECOND, 18 * SECOND)]


def test_a_bound_begins_anew_after_each_outage_that_it_meets() -> None:
    assert extended(0, 9 * SECOND, OUT) == 9 * SECOND
    assert extended(0, 10 * SECOND, OUT) == 28 * SECOND
    assert extended(12 * SECOND, 1 * SECOND, OUT) == 16 * SECOND
    assert extended(16 * SECOND, 9 * SECOND, OUT) == 27 * SECOND
    assert extended(19 * SECOND, 1 * SECOND, OUT) == 20 * SECOND


def test_a_silence_does_not_count_the_time_in_which_nobody_could_hear() -> None:
    assert before(20 * SECOND, 1 * SECOND, OUT) == 19 * SECOND
    assert before(20 * SECOND, 3 * SECOND, OUT) == 16 * SECOND
    assert before(20 * SECOND, 5 * SECOND, OUT) == 9 * SECOND
    assert before(12 * SECOND, 3 * SECOND, OUT) == 7 * SECOND


def orphan(attempt: int = 1, back_ns: int | None = None) -> Orphan:
    clock = Clock()
    wall_ns = clock.wall_ns(100 * SECOND)
    return Orphan("j", 1, attempt, 3, "r", 100 * SECOND, wall_ns, back_ns)


def judged(lost: Orphan, *after_s: float, status: JobStatus = JobStatus.PENDING) -> tuple[list[float], int]:
    """How long it took, and how many were missing. The job was claimed after so many seconds."""
    stream = Stream("live-jobs")
    stream.begin()
    stream.hear(message("hello", 0, {"recovered": False}))
    for number, seconds in enumerate((-1.0, *after_s), 1):
        at_ns = lost.at_wall_ns + int(seconds * SECOND)
        stream.hear(message("x", number, told(status="claimed", at_ns=at_ns)))
    finals = {"j": FinalJob("j", status, 1, 3)}
    found, missing = regrants([lost], stream, finals, [], Clock(), 3.0, 0.5)
    return [round(each.took_s, 1) for each in found if each.took_s <= each.bound_s], len(missing)


def test_a_job_that_is_granted_again_in_time_is_counted_and_one_that_never_is_is_missed() -> None:
    assert judged(orphan(), 4.5, 20.0) == ([4.5], 0)
    assert judged(orphan(), 5.5) == ([], 0)
    assert judged(orphan(attempt=2), 5.5) == ([5.5], 0)
    assert judged(orphan()) == ([], 1)
    assert judged(orphan(), status=JobStatus.FAILED) == ([], 0)
    assert judged(orphan(back_ns=102 * SECOND), 9.0) == ([], 0)


def test_an_actor_that_comes_back_late_or_never_breaks_the_promise() -> None:
    fault = ActorFault(0, "kill", "registry", 0.0)
    promise = recovery_promise([Done(fault, 1, 0, back_ns=back) for back in (9 * SECOND, 11 * SECOND, None)])
    assert promise.broken == ["registry 1: 11.0 s", "registry 1: never"]


def test_growth_is_told_per_minute() -> None:
    slope = slope_of([Sample(at, 100 + at, 5, 9 - at) for at in range(10)])
    assert [round(rate, 6) for rate in (slope.rss_mb, slope.fds, slope.threads)] == [60.0, 0.0, -60.0]


def test_what_grows_is_named_but_for_the_pages_that_a_job_store_keeps() -> None:
    leak = slope_of([Sample(60 * at, 100 + 2 * at, 5 + at, 9) for at in range(10)])
    still = slope_of([Sample(60 * at, 100, 5, 9) for at in range(10)])
    told = growing({"door": leak, "job-store": leak, "registry": still})
    assert told == [
        "door: +2.00 MB a minute",
        "door: +1.00 files a minute",
        "job-store: +1.00 files a minute",
    ]


# -- leases over a stop of the job store


@pytest.mark.parametrize(
    ("named_at_s", "lost_at_s", "steady_from_s", "kept"),
    [
        (9.0, 20.5, 0.0, False),  # it held the job, and lost it for the store's absence
        (9.0, 21.5, 0.0, True),  # later: for another reason
        (8.4, 20.5, 0.0, True),  # its last word was too old to tell
        (None, 20.5, 0.0, True),  # granted, and its robot never heard
        (9.0, 20.5, 8.0, True),  # the robot had not been there for a whole lease
    ],
)
def test_a_job_that_was_named_before_a_stop_keeps_its_lease(
    named_at_s: float | None, lost_at_s: float, steady_from_s: float, kept: bool
) -> None:
    clock = Clock()
    stop = Done(ActorFault(10.0, "stop", "job-store", 0.0, 10.0), 1, 10 * SECOND, 20 * SECOND, 20 * SECOND)
    robot = SimpleNamespace(steady=[Period(int(steady_from_s * SECOND))])
    beats = [Beat("r", [JobToken("other", 1)]), Beat("s", [JobToken("j", 1)])]
    ops = [Op(beat.robot_id, beat, 9 * SECOND) for beat in beats]
    if named_at_s is not None:
        ops.append(Op("r", Beat("r", [JobToken("j", 1)]), int(named_at_s * SECOND)))
    lost = [LostLease("j", "r", clock.wall_ns(int(lost_at_s * SECOND)))]
    robots: Any = {"r": robot}
    assert storm_promise(robots, lost, [stop], clock, 3.0, ops).kept is kept
