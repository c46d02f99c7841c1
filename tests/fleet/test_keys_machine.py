"""The key table against a model of plain dicts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from conftest import search_further
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fleet.errors import Busy, Conflict, FleetError, NotFound
from fleet.keys import KeyRecord, KeyTable, digest_of
from fleet.limits import SECOND, Limits
from fleet.wall_time import rfc3339

LIMITS = Limits(max_keys=4)
EPOCH_NS = 1_736_937_000_000_000_000
IDS = st.sampled_from(["k1", "k2", "k3", "k4", "k5", "k6"])
ROBOTS = st.sampled_from(["r1", "r2"])


@dataclass
class Known:
    robot_id: str
    digest: str
    ttl_s: int | None
    ends_s: int | None  # since EPOCH_NS
    revoked: bool = False
    replaced_by: str | None = None


class KeyMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table = KeyTable(LIMITS)
        self.known: dict[str, Known] = {}  # in the order of issue
        self.heard: dict[str, KeyRecord] = {}
        self.now_s = 0

    @property
    def wall_ns(self) -> int:
        return EPOCH_NS + self.now_s * SECOND

    def live(self, known: Known) -> bool:
        return not known.revoked and (known.ends_s is None or self.now_s < known.ends_s)

    def dead(self) -> list[str]:
        return [key_id for key_id, known in self.known.items() if not self.live(known)]

    def refused(self, error: type[FleetError], act: object, *given: object) -> None:
        """An illegal act gives its error, and nothing has changed."""
        before = self.table.records()
        with pytest.raises(error):
            act(*given)  # type: ignore[operator]
        assert self.table.records() == before
        assert self.table.take_changes() == []

    def added(self, key_id: str, robot_id: str, digest: str, ttl_s: int | None) -> None:
        """The oldest dead key makes room."""
        if len(self.known) == LIMITS.max_keys:
            del self.known[self.dead()[0]]
        ends_s = None if ttl_s is None else self.now_s + ttl_s
        self.known[key_id] = Known(robot_id, digest, ttl_s, ends_s)

    def full(self) -> bool:
        return len(self.known) == LIMITS.max_keys and not self.dead()

    @rule(key_id=IDS, robot_id=ROBOTS, ttl_s=st.sampled_from([None, 5, 50]), other=st.booleans())
    def issue(self, key_id: str, robot_id: str, ttl_s: int | None, other: bool) -> None:
        known, digest = self.known.get(key_id), digest_of(f"{key_id} {other}")
        given = (key_id, robot_id, "", digest, ttl_s, self.wall_ns)
        if known is not None and known.digest != digest:
            self.refused(Conflict, self.table.issue, *given)
        elif known is None and self.full():
            self.refused(Busy, self.table.issue, *given)
        else:
            if known is None:
                self.added(key_id, robot_id, digest, ttl_s)
            assert self.table.issue(*given).key.key_id == key_id

    @rule(
        key_id=IDS,
        new_id=IDS,
        ttl_s=st.sampled_from([None, 7]),
        grace_s=st.sampled_from([0, 3, 20]),
        other=st.booleans(),
    )
    def rotate(self, key_id: str, new_id: str, ttl_s: int | None, grace_s: int, other: bool) -> None:
        old, new, digest = self.known.get(key_id), self.known.get(new_id), digest_of(f"{new_id} {other}")
        given = (key_id, new_id, digest, ttl_s, grace_s, self.wall_ns)
        if old is None:
            self.refused(NotFound, self.table.rotate, *given)
        elif old.replaced_by == new_id and new is not None and new.digest == digest:
            before = self.table.records()
            again = self.table.rotate(*given)
            assert (again.old.key.key_id, again.new.key.key_id) == (key_id, new_id)
            assert self.table.records() == before
            assert self.table.take_changes() == []
        elif old.replaced_by == new_id and new is None:
            pass  # the new one died and made room; its id does not come again
        elif old.replaced_by is not None or not self.live(old) or new is not None:
            self.refused(Conflict, self.table.rotate, *given)
        elif self.full():
            self.refused(Busy, self.table.rotate, *given)
        else:
            self.added(new_id, old.robot_id, digest, old.ttl_s if ttl_s is None else ttl_s)
            old.replaced_by, old.revoked = new_id, grace_s == 0
            if grace_s:
                ends_s = self.now_s + grace_s
                old.ends_s = ends_s if old.ends_s is None else min(old.ends_s, ends_s)
            rotated = self.table.rotate(*given)
            assert (rotated.old.key.key_id, rotated.new.key.key_id) == (key_id, new_id)

    @rule(key_id=IDS)
    def revoke(self, key_id: str) -> None:
        if key_id not in self.known:
            self.refused(NotFound, self.table.revoke, key_id, self.wall_ns)
            return
        self.known[key_id].revoked = True
        assert self.table.revoke(key_id, self.wall_ns).revoked_at is not None

    @rule(robot_id=ROBOTS)
    def a_robot_goes(self, robot_id: str) -> None:
        self.table.revoke_robot(robot_id, self.wall_ns)
        for known in self.known.values():
            known.revoked = known.revoked or known.robot_id == robot_id

    @rule(step_s=st.sampled_from([1, 3, 10]))
    def time_passes(self, step_s: int) -> None:
        self.now_s += step_s

    @invariant()
    def every_key_is_as_the_model_says(self) -> None:
        records = self.table.records()
        assert [record.key.key_id for record in records] == list(self.known)
        for record in records:
            known, key = self.known[record.key.key_id], record.key
            ends_at = None if known.ends_s is None else rfc3339(EPOCH_NS + known.ends_s * SECOND)
            assert record.live(self.wall_ns / 1e9) == self.live(known)
            assert (key.robot_id, key.replaced_by, record.digest) == (
                known.robot_id,
                known.replaced_by,
                known.digest,
            )
            assert (key.expires_at, key.revoked_at is not None) == (ends_at, known.revoked)

    @invariant()
    def who_follows_the_changes_knows_the_table(self) -> None:
        """And the end of a key only ever comes nearer, by which a door tells old words from new."""
        for record in self.table.take_changes():
            known = self.heard.get(record.digest)
            if known is not None and known.number == record.number:
                assert record.ends_s <= known.ends_s
            self.heard[record.digest] = record
        assert [self.heard[record.digest] for record in self.table.records()] == self.table.records()

    @invariant()
    def pages_cover_the_table_newest_first(self) -> None:
        for robot_id in (None, "r1"):
            wanted = [k for k, known in self.known.items() if robot_id in (None, known.robot_id)]
            seen, before = [], 0
            while True:
                keys, before = self.table.page(robot_id, before, 2)
                seen += [key.key_id for key in keys]
                if not before:
                    break
            assert seen == wanted[::-1]


TestAKeyTableAgreesWithANaiveModel = KeyMachine.TestCase
TestAKeyTableAgreesWithANaiveModel.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.long
def test_a_key_table_agrees_with_its_model_on_many_more_examples() -> None:
    search_further(KeyMachine)
