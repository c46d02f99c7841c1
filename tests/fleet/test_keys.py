"""API keys: their form, and what the table keeps of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.errors import Busy, Conflict, NotFound
from fleet.keys import KeyTable, digest_of, key_secret, well_formed
from fleet.limits import SECOND, Limits

EPOCH_NS = 1_736_937_000_000_000_000
DIGEST = digest_of("x")


@pytest.fixture
def table() -> KeyTable:
    return KeyTable(Limits(max_keys=2))


@given(st.binary(min_size=32, max_size=32))
def test_a_secret_has_a_prefix_43_digits_and_a_checksum(random: bytes) -> None:
    secret = key_secret(random)
    assert len(secret) == 5 + 43 + 6
    assert secret.startswith("crpa_")
    assert secret[5:].isalnum()
    assert well_formed(secret)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 53), st.sampled_from("09AZaz_-é"))
def test_a_mistyped_secret_is_known_as_such(random: bytes, place: int, letter: str) -> None:
    secret = key_secret(random)
    mistyped = secret[:place] + letter + secret[place + 1 :]
    assert well_formed(mistyped) == (mistyped == secret)


@pytest.mark.parametrize("text", ["", "crpa_", "crpa_" + "0" * 49, "0" * 54, key_secret(b"\0" * 32) + "0"])
def test_what_is_no_key_is_not_well_formed(text: str) -> None:
    assert not well_formed(text)


def test_the_extremes_of_256_bits_fit() -> None:
    assert key_secret(b"\0" * 32)[5:48] == "0" * 43
    assert well_formed(key_secret(b"\xff" * 32))


def test_issuing_again_under_one_id_gives_the_first_key(table: KeyTable) -> None:
    first = table.issue("k", "r", "one", DIGEST, None, EPOCH_NS)
    assert table.issue("k", "r", "two", DIGEST, None, EPOCH_NS + SECOND) == first
    assert len(table.take_changes()) == 1
    with pytest.raises(Conflict):
        table.issue("k", "r", "one", digest_of("y"), None, EPOCH_NS)
    assert table.records() == [first]


def test_a_revoked_key_stays_revoked_from_its_first_time(table: KeyTable) -> None:
    table.issue("k", "r", "", DIGEST, None, EPOCH_NS)
    first = table.revoke("k", EPOCH_NS + SECOND)
    assert first.revoked_at == "2025-01-15T10:30:01.000Z"
    assert table.revoke("k", EPOCH_NS + 2 * SECOND) == first
    assert [record.key.revoked_at for record in table.take_changes()] == [None, first.revoked_at]
    with pytest.raises(NotFound):
        table.revoke("other", EPOCH_NS)


def test_a_key_ends_with_its_time(table: KeyTable) -> None:
    record = table.issue("k", "r", "", DIGEST, 60.0, EPOCH_NS)
    assert record.key.expires_at == "2025-01-15T10:31:00.000Z"
    assert record.live(EPOCH_NS / 1e9 + 59)
    assert not record.live(EPOCH_NS / 1e9 + 60)


def test_a_deleted_robot_takes_its_keys_with_it(table: KeyTable) -> None:
    table.issue("mine", "r", "", DIGEST, None, EPOCH_NS)
    table.issue("other", "s", "", digest_of("y"), None, EPOCH_NS)
    table.revoke_robot("r", EPOCH_NS)
    assert {r.key.key_id: r.live(0.0) for r in table.records()} == {"mine": False, "other": True}


def test_a_full_table_lets_a_dead_key_go_and_refuses_when_none_is(table: KeyTable) -> None:
    for key_id in ("a", "b"):
        table.issue(key_id, "r", "", digest_of(key_id), None, EPOCH_NS)
    table.take_changes()
    with pytest.raises(Busy):
        table.issue("c", "r", "", DIGEST, None, EPOCH_NS)
    assert table.take_changes() == []
    table.revoke("b", EPOCH_NS)
    table.issue("c", "r", "", DIGEST, None, EPOCH_NS)
    assert [record.key.key_id for record in table.records()] == ["a", "c"]
