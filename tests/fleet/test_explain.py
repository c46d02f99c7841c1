"""Why a job is still pending, in sentences that are true."""

from __future__ import annotations

from typing import Any

import pytest
from job_world import EPOCH_NS, E, JobWorld

from fleet.errors import NotFound
from fleet.explain import Explanation, Place, Suited, explain
from fleet.limits import SECOND, Limits
from fleet.messages import Beat, RobotSpec, SetRobotStatus
from fleet.registry import RobotRegistry
from fleet.wall_time import rfc3339


class Fleet:
    """A job store and a registry on one clock."""

    def __init__(self, **limits: Any) -> None:
        self.jobs = JobWorld(**limits)
        self.robots = RobotRegistry(Limits(**limits))

    def robot(self, robot_id: str, *capabilities: str, environment: str = "e", slots: int = 1) -> None:
        spec = RobotSpec(
            robot_id=robot_id,
            environment=environment,
            capabilities=list(capabilities),
            max_concurrent_jobs=slots,
        )
        self.robots.register(spec, "", *self.jobs.clock)

    def why(self, job_id: str = "j") -> Explanation:
        job = self.jobs.store.get(job_id)
        suited = self.robots.suited(job.environment, job.required_capabilities)
        names = [robot.robot_id for robot in suited.able]
        return explain(self.jobs.store.place(job_id, names, *self.jobs.clock), suited)

    def codes(self, job_id: str = "j") -> list[str]:
        return [reason.code for reason in self.why(job_id).reasons]

    def states(self) -> dict[str, str]:
        return {robot.robot_id: robot.state for robot in self.why().robots}


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_without_robots_that_is_why(fleet: Fleet) -> None:
    fleet.jobs.submit("j")
    assert fleet.codes() == ["no_robot"]


def test_an_environment_without_robots_is_named(fleet: Fleet) -> None:
    fleet.robot("r", environment="yard")
    fleet.jobs.submit("j", environment="hall")
    why = fleet.why()
    assert [reason.code for reason in why.reasons] == ["no_robot_of_environment"]
    assert why.summary == "no robot is of the environment hall"


def test_capabilities_that_nobody_has_are_named(fleet: Fleet) -> None:
    fleet.robot("r", "arm", environment="hall")
    fleet.robot("s", "lift", environment="yard")
    fleet.jobs.submit("j", environment="hall", required_capabilities=["lift", "arm", "eye"])
    assert fleet.why().summary == "no robot of the environment hall has eye, lift"


def test_capabilities_that_nobody_has_together_are_named(fleet: Fleet) -> None:
    fleet.robot("r", "arm")
    fleet.robot("s", "eye")
    fleet.jobs.submit("j", required_capabilities=["eye", "arm"])
    why = fleet.why()
    assert [reason.code for reason in why.reasons] == ["no_robot_has_all"]
    assert why.summary == "no robot has all of arm, eye"


def test_who_could_take_it_is_told_with_what_each_does(fleet: Fleet) -> None:
    fleet.jobs.submit("one", "two")
    for robot_id, slots in (("gone", 1), ("fixed", 1), ("drained", 1), ("full", 1), ("silent", 3)):
        fleet.robot(robot_id, slots=slots)
    fleet.robot("unfit", environment="yard")
    assert fleet.jobs.granted("full") == ["one"]
    assert fleet.jobs.granted("silent") == ["two"]
    fleet.jobs.after(60_000)
    for robot_id in ("fixed", "drained", "full", "silent"):
        fleet.robots.heartbeats([Beat(robot_id)], *fleet.jobs.clock)
    fleet.robots.expire(*fleet.jobs.clock)
    fleet.jobs.submit("again", "twice", priority=0)
    assert fleet.jobs.granted("full") == ["again"]
    assert fleet.jobs.granted("silent") == ["twice"]
    until = rfc3339(EPOCH_NS + 3_600 * SECOND)
    fleet.robots.set_status(SetRobotStatus("fixed", True, None, "new gripper", until), fleet.jobs.clock[1])
    fleet.robots.set_status(SetRobotStatus("drained", None, True, "update"), fleet.jobs.clock[1])
    fleet.jobs.submit("j", environment="e")
    why = fleet.why()
    told = {r.robot_id: (r.state, r.jobs, r.slots, r.note, r.until) for r in why.robots}
    assert told == {
        "full": ("busy", 1, 1, "", None),
        "silent": ("not_asking", 1, 3, "", None),
        "drained": ("draining", 0, 1, "update", None),
        "fixed": ("maintenance", 0, 1, "new gripper", until),
        "gone": ("offline", 0, 1, "", None),
    }
    assert why.robot_counts == {"ready": 2, "draining": 1, "maintenance": 1, "offline": 1}
    assert why.summary == "5 robots could take it; silent has a free slot and does not ask for work"


def test_robots_that_are_all_busy_are_why(fleet: Fleet) -> None:
    fleet.robot("r")
    fleet.jobs.submit("one")
    fleet.jobs.granted("r")
    fleet.jobs.submit("j")
    assert fleet.codes() == ["busy"]


def test_robots_that_are_all_away_are_why(fleet: Fleet) -> None:
    fleet.robot("r")
    fleet.robot("s")
    fleet.jobs.after(60_000)
    fleet.robots.expire(*fleet.jobs.clock)
    fleet.jobs.submit("j")
    assert fleet.why().summary == "2 robots could take it: 2 offline"


def test_jobs_that_the_same_robots_may_take_go_first(fleet: Fleet) -> None:
    """Those that fewer robots may take, or others, are not counted: they need not be in the way."""
    fleet.robot("r", "arm")
    fleet.jobs.submit("busy", required_capabilities=["arm"])
    fleet.jobs.granted("r", capabilities=["arm"])
    fleet.jobs.submit("same", environment="e", required_capabilities=["arm"])
    fleet.jobs.submit("wider", required_capabilities=["arm"])
    fleet.jobs.submit("widest")
    fleet.jobs.submit("narrower", environment="e", required_capabilities=["arm", "eye"])
    fleet.jobs.submit("elsewhere", environment="f")
    fleet.jobs.submit("j", environment="e", required_capabilities=["arm"])
    fleet.jobs.submit("urgent", priority=0)
    fleet.jobs.submit("behind")
    why = fleet.why()
    assert why.outranked_by == 4
    assert [reason.code for reason in why.reasons] == ["busy", "outranked"]
    fleet.jobs.store.cancel("same", *fleet.jobs.clock)
    assert fleet.why().outranked_by == 3


def test_counting_who_goes_first_ends_at_its_bound() -> None:
    fleet = Fleet(max_outranking=10)
    fleet.jobs.submit(*(f"j{n}" for n in range(50)))
    fleet.jobs.submit("j")
    assert fleet.why().outranked_by == 10
    assert fleet.why("j9").outranked_by == 9
    assert fleet.why("j0").outranked_by == 0


def test_of_many_robots_twenty_are_told_and_all_counted(fleet: Fleet) -> None:
    for number in range(50):
        fleet.robot(f"r{number}")
    fleet.jobs.submit("j")
    why = fleet.why()
    assert (len(why.robots), why.robot_counts) == (20, {"ready": 50})


def test_who_is_there_is_told_before_who_is_away(fleet: Fleet) -> None:
    for number in range(15):
        fleet.robot(f"away{number}")
    fleet.jobs.after(60_000)
    fleet.robots.expire(*fleet.jobs.clock)
    for number in range(15):
        fleet.robot(f"here{number}")
    fleet.jobs.submit("j")
    assert [robot.state for robot in fleet.why().robots] == ["not_asking"] * 15 + ["offline"] * 5


def test_a_job_that_is_not_due_tells_when_it_is(fleet: Fleet) -> None:
    fleet.robot("r")
    fleet.jobs.ask("r", wait_ms=30_000)
    at = rfc3339(EPOCH_NS + 5 * SECOND)
    fleet.jobs.submit("j", not_before=at)
    why = fleet.why()
    assert [reason.code for reason in why.reasons] == ["not_due"]
    assert why.summary == f"it is not to begin before {at}"


def test_a_job_that_failed_tells_of_its_attempts_and_their_last_error(fleet: Fleet) -> None:
    fleet.robot("r")
    token = fleet.jobs.running()
    job = fleet.jobs.say(E.FAIL, token, error="jam")
    why = fleet.why()
    assert why.summary == f"attempt 1 of 3 failed; the next is not to begin before {job.not_before}"
    assert why.reasons[-1].detail == "attempt 1 of 3: jam"


def test_a_job_that_will_expire_tells_how_soon(fleet: Fleet) -> None:
    fleet.jobs.submit("j", pending_timeout_s=9)
    fleet.jobs.after(2_500)
    assert fleet.why().reasons[-1].detail == "it fails in 6.5 s if nobody takes it"


def test_a_robot_that_asks_takes_it_soon(fleet: Fleet) -> None:
    """Between a look at the registry and one at the store all may be well."""
    job = fleet.jobs.submit("j")[0]
    fleet.robot("r")
    suited = fleet.robots.suited(None, [])
    assert [r.code for r in explain(Place(job, asking=["r"]), suited).reasons] == ["about_to_be_granted"]


def test_every_other_state_has_its_sentence(fleet: Fleet) -> None:
    fleet.jobs.submit("j")
    token = fleet.jobs.grant().token
    assert fleet.why().summary.startswith("r was granted it at 2025-01-15T10:30:00.000Z")
    fleet.jobs.say(E.START, token)
    assert fleet.why().summary == "r works on it since 2025-01-15T10:30:00.000Z"
    fleet.jobs.store.cancel("j", *fleet.jobs.clock)
    assert fleet.why().summary.endswith(", and is asked to stop")
    fleet.jobs.say(E.COMPLETE, token)
    assert fleet.why().summary == "r completed it at 2025-01-15T10:30:00.000Z"
    assert fleet.why().reasons == []
    for job_id in ("f", "c"):
        fleet.jobs.submit(job_id)
    fleet.jobs.store.cancel("c", *fleet.jobs.clock)
    fleet.jobs.say(E.FAIL, fleet.jobs.grant().token, "f", error="jam", retryable=False)
    assert fleet.why("f").summary == "it failed at 2025-01-15T10:30:00.000Z: jam"
    assert fleet.why("c").summary == "it was cancelled at 2025-01-15T10:30:00.000Z"
    with pytest.raises(NotFound):
        fleet.jobs.store.place("nobody", [], *fleet.jobs.clock)


def test_a_job_that_is_stuck_says_since_when() -> None:
    fleet = Fleet(stuck_after_s=20)
    fleet.jobs.running()
    fleet.jobs.after(20_000)
    assert fleet.why().summary.endswith(", and has told of no progress since 2025-01-15T10:30:00.000Z")


def test_a_pending_job_always_has_a_reason() -> None:
    """Whatever the two sides say of each other."""
    job = JobWorld().submit("j")[0]
    for suited in (Suited(), Suited(1), Suited(1, 1, ["arm"]), Suited(1, 1)):
        assert explain(Place(job), suited).summary
