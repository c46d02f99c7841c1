"""What the registry does, by example."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.errors import PeerFault, Unavailable
from fleet.limits import MS, SECOND, Limits
from fleet.messages import Beat, SetRobotStatus
from fleet.messages import RobotSpec as Spec
from fleet.registry import RobotRegistry
from fleet.wall_time import rfc3339

EPOCH_NS = 1_736_937_000_000_000_000
MOST_PER_READING_NS = 500 * MS


class World:
    """A registry, a clock that the test moves, and what it was heard to say."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.registry = RobotRegistry(self.limits)
        self.now_ns = 0
        self.away_ns = 0  # time that the registry's clock did not count

    @property
    def clock(self) -> tuple[int, int]:
        return self.now_ns, EPOCH_NS + self.now_ns + self.away_ns

    def join(self, *robot_ids: str) -> None:
        for robot_id in robot_ids:
            self.registry.register(Spec(robot_id=robot_id), "", *self.clock)

    def leave(self, *robot_ids: str) -> None:
        for robot_id in robot_ids:
            admission = self.registry.begin_deletion(robot_id, *self.clock)
            self.registry.delete(robot_id, admission, *self.clock)

    def beat(self, *robot_ids: str, **said: Any) -> list[int]:
        """The intervals that they are told."""
        beats = [Beat(robot_id, **said) for robot_id in robot_ids]
        return [reply.next_heartbeat_ms for reply in self.registry.heartbeats(beats, *self.clock)]

    def after(self, ms: int) -> None:
        self.now_ns += ms * MS
        self.registry.expire(*self.clock)

    def pause(self, robot_id: str = "r", **what: Any) -> None:
        self.registry.set_status(SetRobotStatus(robot_id, **what), self.clock[1])

    def in_ms(self, ms: int) -> str:
        return rfc3339(self.clock[1] + ms * MS)

    def said(self) -> list[tuple[str, str]]:
        events = [json.loads(event) for event in self.registry.take_events()]
        return [(event["robot_id"], event["status"]) for event in events]

    def restart(self) -> World:
        """Another registry, from what this one's journal would hold."""
        after = World(**{name: getattr(self.limits, name) for name in Limits.__struct_fields__})
        after.registry.restore(self.registry.take_records().changed, 0)
        after.away_ns = self.now_ns + self.away_ns
        return after


@pytest.fixture
def world() -> World:
    """Three robots may beat every 100 ms, ten every 334."""
    return World(
        heartbeat_interval_ms=100, max_heartbeats_per_s=30, max_heartbeat_interval_ms=1_000, max_robots=30
    )


def test_the_offline_event_carries_the_last_cpu_and_memory(world: World) -> None:
    world.join("r")
    world.after(10)
    world.beat("r", status="busy", cpu_percent=41.25, memory_mb=512.5)
    world.registry.take_events()
    world.registry.expire(310 * MS - 1, EPOCH_NS)
    assert world.registry.take_events() == []
    world.registry.expire(310 * MS, EPOCH_NS)
    [event] = world.registry.take_events()
    assert json.loads(event) == {
        "robot_id": "r",
        "status": "offline",
        "cpu_percent": 41.25,
        "memory_mb": 512.5,
        "timestamp": rfc3339(EPOCH_NS),
    }


def test_a_larger_fleet_is_told_to_beat_more_slowly_and_learns_it_beat_by_beat(world: World) -> None:
    world.join("r")
    assert world.beat("r") == [100]
    world.join(*(f"s{n}" for n in range(9)))
    [told] = world.beat("r")
    assert told >= 334
    assert world.registry.get("r").heartbeat_interval_ms == told
    assert world.registry.open("new", "session").heartbeat_ms == told


def test_a_robot_that_was_told_to_beat_slowly_is_not_held_to_less(world: World) -> None:
    """Whether it has heard of the shorter interval shows with its next beat."""
    crowd = [f"s{n}" for n in range(9)]
    world.join("r", *crowd)
    [slow] = world.beat("r")
    world.leave(*crowd)
    world.said()
    [quick] = world.beat("r")
    world.said()
    assert quick == 100 < slow
    world.after(3 * slow - 1)
    assert world.said() == []
    world.beat("r")
    world.said()
    world.after(3 * quick - 1)
    assert world.said() == []
    world.after(1)
    assert world.said() == [("r", "offline")]


def test_a_maintenance_ends_at_its_time_and_the_return_is_an_event(world: World) -> None:
    world.join("r")
    world.pause(maintenance=True, note="new gripper", until=world.in_ms(250))
    world.after(200)
    world.beat("r")
    robot = world.registry.get("r")
    assert robot.maintenance is not None
    assert (robot.status, robot.maintenance.note, robot.maintenance.until) == (
        "maintenance",
        "new gripper",
        world.in_ms(50),
    )
    world.said()
    world.after(49)
    assert world.said() == []
    world.after(1)
    assert world.said() == [("r", "idle")]
    assert world.registry.get("r").maintenance is None


def test_maintenance_and_drain_end_each_at_its_own_time(world: World) -> None:
    world.join("r")
    world.pause(maintenance=True, until=world.in_ms(100))
    world.pause(draining=True, until=world.in_ms(200), note="shift ends")
    world.after(100)
    robot = world.registry.get("r")
    assert (robot.maintenance, robot.draining) == (None, True)
    world.after(100)
    assert world.registry.get("r").draining is False


def test_an_end_that_is_put_off_or_taken_away_holds(world: World) -> None:
    world.join("r", "s")
    for robot_id in ("r", "s"):
        world.pause(robot_id, draining=True, until=world.in_ms(100))
    world.pause("r", draining=True, until=world.in_ms(200))
    world.pause("s", draining=True)
    world.after(199)
    assert [world.registry.get(name).draining for name in ("r", "s")] == [True, True]
    world.after(1)
    assert [world.registry.get(name).draining for name in ("r", "s")] == [False, True]


def test_a_time_that_is_none_pauses_nobody(world: World) -> None:
    world.join("r")
    with pytest.raises(PeerFault):
        world.pause(maintenance=True, until="soon")
    assert world.registry.get("r").status == "idle"


def test_after_a_restart_nobody_is_offline_before_one_full_timeout(world: World) -> None:
    world.join("r", "gone")
    world.after(299)
    world.beat("r")
    world.after(1)
    assert world.said()[-1] == ("gone", "offline")
    after = world.restart()
    assert {robot.robot_id: robot.status for robot in after.registry.page(None, None, 9, 0)[0]} == {
        "gone": "offline",
        "r": "idle",
    }
    after.after(299)
    assert after.said() == []
    after.after(1)
    assert after.said() == [("r", "offline")]


def test_a_restart_keeps_the_interval_that_robots_still_follow(world: World) -> None:
    world.join("r", *(f"s{n}" for n in range(9)))
    [told] = world.beat("r")
    after = world.restart()
    after.after(3 * told - 1)
    assert after.registry.get("r").status == "idle"
    after.after(1)
    assert after.registry.get("r").status == "offline"


def test_a_maintenance_whose_end_passed_while_the_registry_was_away_ends_when_it_is_back(
    world: World,
) -> None:
    world.join("r", "s")
    world.pause("r", maintenance=True, until=world.in_ms(100))
    world.pause("s", maintenance=True, note="for good")
    after = world.restart()
    after.away_ns += SECOND
    after.after(1)
    assert after.said() == [("r", "idle")]
    assert [after.registry.get(name).status for name in ("r", "s")] == ["idle", "maintenance"]


def test_a_robot_deleted_and_registered_between_two_looks_is_one_record(world: World) -> None:
    world.join("r", "s")
    world.registry.take_records()
    world.leave("r", "s")
    world.join("r")
    changes = world.registry.take_records()
    assert [record.spec.robot_id for record in changes.changed] == ["r"]
    assert changes.deleted == ["s"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_who_delete_a_robot_at_once_both_succeed(world: World, order: tuple[int, int]) -> None:
    world.join("r")
    admissions = [world.registry.begin_deletion("r", *world.clock) for _ in range(2)]
    for which in order:
        world.registry.delete("r", admissions[which], *world.clock)
    assert world.registry.counts().total == 0


def test_a_robot_deleted_before_a_restart_is_admitted_anew_after_it(world: World) -> None:
    """Or claims of the new one would be taken for claims of the old one that came too late."""
    world.join("r")
    ended = world.registry.begin_deletion("r", *world.clock)
    world.leave("r")
    after = world.restart()
    after.away_ns += 10 * MS
    after.join("r")
    assert after.registry.admit("r", 0).admission > ended


def test_admissions_rise_though_the_wall_clock_is_set_back(world: World) -> None:
    world.join("r")
    ended = world.registry.begin_deletion("r", *world.clock)
    after = world.restart()
    after.away_ns -= 3_600 * SECOND
    assert after.registry.begin_deletion("r", *after.clock) > ended


def test_a_deletion_that_another_gave_up_must_begin_anew(world: World) -> None:
    """In between a claim may have been admitted."""
    world.join("r")
    first = world.registry.begin_deletion("r", *world.clock)
    world.registry.give_up_deletion("r")
    world.registry.begin_deletion("r", *world.clock)
    with pytest.raises(Unavailable):
        world.registry.delete("r", first, *world.clock)
    assert world.registry.get("r").status == "idle"


def test_a_deletion_that_nobody_ends_lapses(world: World) -> None:
    world.join("r")
    admission = world.registry.begin_deletion("r", *world.clock)
    world.after(world.limits.deletion_ms)
    assert world.registry.admit("r", world.now_ns).admission == admission
    with pytest.raises(Unavailable):
        world.registry.delete("r", admission, *world.clock)


@pytest.mark.parametrize("frozen_s", [2, 20, 3_600])
def test_a_registry_that_was_frozen_declares_nobody_offline_when_it_wakes(frozen_s: int) -> None:
    """Its clock does not count what it slept through; the heartbeats of that time are still to be heard."""
    world = World()
    world.join("r", "s")
    world.beat("r", "s")
    world.pause("s", maintenance=True, until=world.in_ms(1_500))
    world.said()
    world.away_ns += frozen_s * SECOND - MOST_PER_READING_NS
    world.now_ns += MOST_PER_READING_NS
    world.registry.expire(*world.clock)
    assert world.said() == [("s", "idle")]
    world.after(15_000 - 501)
    assert world.said() == []
