"""The keys that a door knows, without a door."""

from __future__ import annotations

import time
from typing import Any

from msgspec.structs import replace

from api.key_ring import MIN_SWEEP, KeyRing
from fleet.keys import ApiKey, KeyRecord, digest_of, key_secret


class Ring:
    def __init__(self) -> None:
        self.revoked: list[str] = []
        self.ring = KeyRing(self.revoked.append, lambda key_id, ends_s: None)

    def issue(self, number: int, **more: Any) -> KeyRecord:
        key = ApiKey(key_id=f"key-{number}", robot_id="r", name="", created_at="")
        record = KeyRecord(key, digest_of(secret_of(number)), **more)
        self.ring.put(record)
        return record

    def revoke(self, record: KeyRecord) -> None:
        self.ring.put(replace(record, key=replace(record.key, revoked_at="2025-01-15T10:30:00.000Z")))

    def knows(self, number: int) -> bool:
        return self.ring.find(secret_of(number), time.time()) is not None


def secret_of(number: int) -> str:
    return key_secret(number.to_bytes(32, "big"))


def test_dead_keys_do_not_pile_up_and_live_ones_stay() -> None:
    ring = Ring()
    for number in range(20 * MIN_SWEEP):
        record = ring.issue(number, expires_s=1.0 if number % 3 == 0 else None)
        if number % 100 and number % 3:
            ring.revoke(record)
    live = [number for number in range(20 * MIN_SWEEP) if number % 100 == 0 and number % 3]
    assert len(ring.ring) <= 3 * MIN_SWEEP
    assert all(map(ring.knows, live))
    assert not any(map(ring.knows, set(range(20 * MIN_SWEEP)).difference(live)))


def test_an_older_word_on_a_key_that_died_does_not_bring_it_back() -> None:
    ring = Ring()
    for number in range(1, MIN_SWEEP):
        ring.revoke(ring.issue(number))
    issued = ring.issue(0)
    ring.revoke(issued)
    for number in range(MIN_SWEEP, MIN_SWEEP + 100):
        ring.issue(number)  # the first of them makes a sweep
    ring.ring.put(issued)
    assert not ring.knows(0)
