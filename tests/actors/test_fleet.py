"""What a door needs of the fleet: one suite, on rooms in this process and on real Ray actors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from conftest import FollowFeed

from actors.client import FleetClient
from fleet.dead_letters import DeadLetterFilter, Redrive, Redriven
from fleet.errors import Conflict, Forbidden, NotFound, PeerFault
from fleet.events import KEYS, LIVE_JOBS, QUEUE_METRICS, ROBOT_STATUS
from fleet.job import JobEvent
from fleet.keys import digest_of
from fleet.messages import (
    AdmitClaim,
    Announce,
    Beat,
    Cancel,
    Get,
    Held,
    IssueKey,
    JobSpec,
    JobToken,
    RegisterRobot,
    Report,
    RevokeKey,
    RobotSpec,
    RotateKey,
    SetRobotStatus,
    Submit,
)
from fleet.messages import Granted as Grant
from fleet.occupancy import Occupancy


async def submitted(fleet: FleetClient, *job_ids: str, **spec: Any) -> None:
    await fleet.execute(Submit(list(job_ids), [JobSpec(name="weld", **spec)] * len(job_ids)))


async def granted(fleet: FleetClient, robot_id: str = "r", wait_ms: int = 0, limit: int = 1) -> list[Grant]:
    await fleet.administer(RegisterRobot(RobotSpec(robot_id=robot_id, max_concurrent_jobs=10)))
    return (await fleet.claim(robot_id, f"q-{robot_id}", limit, wait_ms)).grants


async def test_a_job_lives_and_live_jobs_tells_it_in_order(fleet: FleetClient) -> None:
    jobs = await FollowFeed.begin(fleet, LIVE_JOBS)
    await submitted(fleet, "j")
    [grant] = await granted(fleet)
    for event in (JobEvent.START, JobEvent.COMPLETE):
        job = await fleet.execute(Report(event, "j", "r", grant.token, result={"n": 1}))
    assert job == await fleet.execute(Get("j"))
    assert (job.status, job.result) == ("completed", {"n": 1})
    seen = [(event["job_id"], event["status"]) for event in await jobs.take(4)]
    assert seen == [("j", status) for status in ("pending", "claimed", "running", "completed")]


async def test_a_refusal_arrives_as_its_error_and_its_neighbours_succeed(
    fleet: FleetClient,
) -> None:
    await submitted(fleet, "j")
    [grant] = await granted(fleet)
    asked = [
        fleet.execute(Get("nobody")),
        fleet.execute(Report(JobEvent.COMPLETE, "j", "r", grant.token)),
        fleet.execute(Report(JobEvent.START, "j", "thief", grant.token)),
        fleet.execute(Report(JobEvent.START, "j", "r", grant.token + 1)),
        fleet.administer(AdmitClaim("nobody")),
        fleet.execute(Get("j")),
    ]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:5]] == [NotFound, Conflict, Forbidden, Conflict, NotFound]
    assert [outcome.code for outcome in outcomes[1:4]] == ["wrong_state", "not_yours", "stale_token"]  # type: ignore[union-attr]
    assert outcomes[5].status == "claimed"  # type: ignore[union-attr]


async def test_a_waiting_claim_is_granted_when_a_job_comes(fleet: FleetClient) -> None:
    waiting = asyncio.ensure_future(granted(fleet, wait_ms=20_000))
    other = asyncio.ensure_future(granted(fleet, "s", wait_ms=20_000))
    await asyncio.wait([waiting, other], timeout=0.3)
    await submitted(fleet, "a", "b")
    grants = await asyncio.gather(waiting, other)
    assert sorted(grant.job.job_id for [grant] in grants) == ["a", "b"]
    assert await fleet.execute(Held("r")) + await fleet.execute(Held("s")) == [g.job.job_id for [g] in grants]


async def test_a_claim_that_nothing_fits_ends_empty(fleet: FleetClient) -> None:
    assert await granted(fleet, wait_ms=50) == []
    assert await granted(fleet, "s") == []


async def test_a_withdrawn_claim_takes_no_job(fleet: FleetClient) -> None:
    await fleet.administer(RegisterRobot(RobotSpec(robot_id="r")))
    for turns, job_id in ((0, "a"), (1, "b"), (3, "c"), (50, "d")):
        waiting = fleet.claim("r", job_id, 1, 20_000)
        for _ in range(turns):  # so far the claim has come when it is withdrawn
            await fleet.execute(Held("r"))
        fleet.withdraw("r", job_id, waiting)
        # By the lane of what robots say: a submission has another, and might overtake the withdrawal.
        assert await granted(fleet, "s") == []
        await submitted(fleet, job_id)
        assert waiting.cancelled()
        assert (await fleet.execute(Cancel(job_id))).previous_status == "pending"


async def test_what_is_granted_to_a_claim_that_is_withdrawn_meanwhile_goes_back(fleet: FleetClient) -> None:
    await granted(fleet)
    for turns in range(12):  # how far the grant has come when the claim is withdrawn
        job_id = f"j{turns}"
        waiting = fleet.claim("r", job_id, 1, 20_000)
        await fleet.execute(Held("r"))
        submitting = fleet.execute(Submit([job_id], [JobSpec(name="weld")]))
        for _ in range(turns):
            await asyncio.sleep(0)
        fleet.withdraw("r", job_id, waiting)
        await submitting
        async with asyncio.timeout(10):  # its lease would bring it back too, but only after 30 s
            while waiting.cancelled() and (await fleet.execute(Get(job_id))).status != "pending":
                pass
        await fleet.execute(Cancel(job_id))


async def test_robots_in_maintenance_or_draining_get_no_job(fleet: FleetClient) -> None:
    await granted(fleet)
    for command, code in (
        (SetRobotStatus("r", maintenance=True), "maintenance"),
        (SetRobotStatus("r", maintenance=False, draining=True), "draining"),
    ):
        await fleet.administer(command)
        with pytest.raises(Conflict) as refused:
            await fleet.claim("r", code, 1, 0)
        assert refused.value.code == code


async def test_every_heartbeat_is_an_event_and_keeps_its_jobs(fleet: FleetClient) -> None:
    await submitted(fleet, "j")
    [grant] = await granted(fleet)
    robots = await FollowFeed.begin(fleet, ROBOT_STATUS)
    beats = [Beat("r", "busy", float(n), 64.0, ["j"]) for n in range(50)]
    held = [JobToken("j", grant.token)]
    answers = await asyncio.gather(*(fleet.heartbeat(beat, held) for beat in beats))
    lost = await fleet.heartbeat(beats[0], [JobToken("j", grant.token + 1)])
    unknown = await fleet.heartbeat(Beat("nobody"), [])
    assert [answer.cancel for answer in answers] == [[]] * 50
    assert lost.cancel == ["j"]
    assert unknown.refused == "not_found"
    assert [event["cpu_percent"] for event in await robots.take(50)] == [float(n) for n in range(50)]


async def test_a_cancel_is_told_to_the_door_that_granted_the_job(fleet: FleetClient) -> None:
    told: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    fleet.on_cancel(lambda robot_id, job_id: told.set_result((robot_id, job_id)))
    await submitted(fleet, "j")
    await granted(fleet)
    assert (await fleet.execute(Cancel("j"))).cancelled
    assert await asyncio.wait_for(told, 10) == ("r", "j")


async def test_a_thousand_jobs_at_once_are_a_thousand_events_in_order(fleet: FleetClient) -> None:
    jobs = await FollowFeed.begin(fleet, LIVE_JOBS)
    depths = await FollowFeed.begin(fleet, QUEUE_METRICS)
    names = [f"j{n}" for n in range(1_000)]
    await submitted(fleet, *names)
    assert [event["job_id"] for event in await jobs.take(1_000)] == names
    while (await depths.take(1))[0]["depth"] != 1_000:
        pass


async def test_the_key_table_and_its_changes_are_heard(fleet: FleetClient) -> None:
    keys = await FollowFeed.begin(fleet, KEYS)
    await fleet.administer(IssueKey("k", "r", "", digest_of("x")))
    await fleet.administer(RevokeKey("k"))
    changes = await keys.take(2)
    assert [change["key"]["revoked_at"] is None for change in changes] == [True, False]
    [record] = await fleet.keys()
    assert (record.key.key_id, record.key.robot_id, record.digest) == ("k", "r", digest_of("x"))
    assert record.key.revoked_at is not None


async def test_a_rotation_is_heard_as_the_end_of_one_key_and_the_begin_of_another(fleet: FleetClient) -> None:
    keys = await FollowFeed.begin(fleet, KEYS)
    await fleet.administer(IssueKey("k", "r", "arm", digest_of("x")))
    rotation = RotateKey("k", "l", digest_of("y"), None, 60.0)
    rotated = await fleet.administer(rotation)
    assert await fleet.administer(rotation) == rotated
    changes = [(change["key"]["key_id"], change["expires_s"] is None) for change in await keys.take(3)]
    assert changes == [("k", True), ("k", False), ("l", True)]
    assert (rotated.new.key.robot_id, rotated.new.key.name) == ("r", "arm")
    with pytest.raises(NotFound):
        await fleet.administer(RotateKey("none", "m", digest_of("z")))
    page, following = await fleet.key_page("r", 0, 1)
    assert (page, following) == ([rotated.new.key], rotated.new.number)
    assert await fleet.key_page(None, following, 1) == ([rotated.old.key], 0)


async def test_a_door_hears_what_the_others_hold_and_not_what_it_holds_itself(fleet: FleetClient) -> None:
    one = Occupancy({"a": 1, "b": 2}, {"10.0.0.1": 3})
    other = Occupancy({"b": 40}, {"10.0.0.2": 5})
    assert await fleet.exchange_occupancy("one", one) == Occupancy()
    assert await fleet.exchange_occupancy("other", other) == one
    assert await fleet.exchange_occupancy("one", Occupancy()) == other
    assert await fleet.exchange_occupancy("third", Occupancy()) == other


async def test_an_announcement_is_one_event_and_changes_nothing(fleet: FleetClient) -> None:
    jobs = await FollowFeed.begin(fleet, LIVE_JOBS)
    robots = await FollowFeed.begin(fleet, ROBOT_STATUS)
    depths = await FollowFeed.begin(fleet, QUEUE_METRICS)
    first = (await fleet.read(QUEUE_METRICS, "", 0, 0)).current
    said = Announce("once", "job-12345", "completed")  # type: ignore[arg-type]
    await asyncio.gather(fleet.execute(said), fleet.execute(said))
    await fleet.announce_job("job-12346", "failed")
    await fleet.announce_robot("robot-001", "busy", 45.2, 1024.5)
    await fleet.announce_depth(42)
    assert [(e["job_id"], e["status"]) for e in await jobs.take(2)] == [
        ("job-12345", "completed"),
        ("job-12346", "failed"),
    ]
    [robot] = await robots.take(1)
    assert tuple(robot.values())[:4] == ("robot-001", "busy", 45.2, 1024.5)
    while (await depths.take(1))[0]["depth"] != 42:  # the store's own 0 may come before it
        pass
    now = (await fleet.read(QUEUE_METRICS, "", 0, 0)).current
    for state in (first, now):
        assert state is None or json.loads(state)["depth"] == 0
    with pytest.raises(NotFound):
        await fleet.execute(Get("job-12345"))
    assert (await fleet.robots(None, None, 10, 0)) == ([], 0)


async def test_what_became_of_a_job_is_told_and_it_may_be_tried_again(fleet: FleetClient) -> None:
    await submitted(fleet, "j", payload={"x": 1}, required_capabilities=["arm"])
    why = await fleet.explain("j")
    assert (why.summary, why.status) == ("no robot is registered", "pending")
    await fleet.administer(RegisterRobot(RobotSpec(robot_id="r", capabilities=["arm"])))
    [grant] = (await fleet.claim("r", "q", 1, 0)).grants
    await fleet.execute(Report(JobEvent.FAIL, "j", "r", grant.token, error="jam", retryable=False))
    assert (await fleet.explain("j")).summary.endswith(": jam")
    assert [event.event for event in await fleet.history("j")] == ["submit", "claim", "fail"]
    assert await fleet.history("nobody") == []
    wanted = DeadLetterFilter(error="jam")
    [dead], place = await fleet.dead_letters(wanted, 0, 10)
    assert (dead.job_id, dead.payload, place) == ("j", {"x": 1}, 0)
    command = Redrive(wanted, request_id="once")
    done = await fleet.redrive(command)
    assert await fleet.redrive(command) == done == Redriven(1, 0, 0)
    again = await fleet.execute(Get((await fleet.execute(Get("j"))).retried_by))
    assert (again.retry_of, again.payload) == ("j", {"x": 1})
    with pytest.raises(NotFound):
        await fleet.explain("nobody")


async def test_commands_with_a_key_are_carried_out_once(fleet: FleetClient) -> None:
    specs = [JobSpec(name="weld")]
    submits = [Submit([f"j{n}"], specs, request_id="k", fingerprint="m") for n in range(50)]
    answers = await asyncio.gather(*(fleet.execute(submit) for submit in submits))
    assert answers == [answers[0]] * 50
    with pytest.raises(PeerFault) as refused:
        await fleet.execute(Submit(["other"], specs, request_id="k", fingerprint="n"))
    assert refused.value.code == "idempotency_key_reused"
    cancel = Cancel(answers[0][0].job_id, request_id="c")
    first = await fleet.execute(cancel)
    assert (first.cancelled, await fleet.execute(cancel)) == (True, first)
    assert not (await fleet.execute(Cancel(cancel.job_id))).cancelled


async def test_metrics_count_robots_and_jobs(fleet: FleetClient) -> None:
    await submitted(fleet, "a", "b", "c")
    [grant] = await granted(fleet)
    await fleet.execute(Report(JobEvent.START, grant.job.job_id, "r", grant.token))
    await fleet.execute(Report(JobEvent.COMPLETE, grant.job.job_id, "r", grant.token))
    await fleet.claim("r", "again", 1, 0)
    await fleet.heartbeat(Beat("r", "busy"), [])
    metrics = await fleet.metrics()
    robots, jobs, queue = metrics.robots, metrics.jobs, metrics.queue
    assert (robots.total, robots.active, robots.idle, robots.busy, robots.offline) == (1, 1, 0, 1, 0)
    assert (jobs.pending, jobs.running, jobs.completed_today, jobs.failed_today) == (1, 1, 1, 0)
    assert queue.depth == 1
    assert metrics.system.version == "0.0.0-test"
