"""Robot API keys: their form, and the table of their hashes. The secrets themselves are never kept."""

from __future__ import annotations

import hashlib
import zlib

import msgspec

from fleet.errors import Busy, Conflict, NotFound
from fleet.limits import Limits
from fleet.wall_time import WallTime, rfc3339

PREFIX = "crpa_"
RANDOM_BYTES = 32
RANDOM_CHARS = 43  # 62**43 > 2**256
CHECK_CHARS = 6  # 62**6 > 2**32
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def key_secret(random: bytes) -> str:
    """`crpa_` + 43 base62 digits of 32 random bytes + 6 of the CRC32 of what stands before them, so that a
    mistyped key is known as such without a look-up."""
    body = PREFIX + _base62(int.from_bytes(random, "big"), RANDOM_CHARS)
    return body + _check_digits(body)


def well_formed(secret: str) -> bool:
    body, check = secret[:-CHECK_CHARS], secret[-CHECK_CHARS:]
    whole = len(secret) == len(PREFIX) + RANDOM_CHARS + CHECK_CHARS and secret.isascii()
    return whole and secret.startswith(PREFIX) and check == _check_digits(body)


def digest_of(secret: str) -> str:
    """SHA-256, hexadecimal: with 256 random bits there is nothing to guess, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_digits(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECK_CHARS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What the world may see of a key."""

    key_id: str
    robot_id: str
    name: str
    created_at: WallTime
    expires_at: WallTime | None = None
    revoked_at: WallTime | None = None


class KeyRecord(msgspec.Struct, frozen=True):
    """A key as doors hold it. `expires_s` is in seconds since 1970."""

    key: ApiKey
    digest: str
    expires_s: float | None = None

    def live(self, now_s: float) -> bool:
        return self.key.revoked_at is None and (self.expires_s is None or now_s < self.expires_s)


class KeyTable:
    """Keys are issued, and then perhaps revoked; never more. Changed records pile up until
    `take_changes`. Bound: `max_keys`; then the oldest dead key makes room, and if none is dead, Busy."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._records: dict[str, KeyRecord] = {}
        self._changes: list[KeyRecord] = []

    def issue(
        self, key_id: str, robot_id: str, name: str, digest: str, ttl_s: float | None, wall_ns: int
    ) -> KeyRecord:
        """Idempotent on `key_id`, which the sender made."""
        known = self._records.get(key_id)
        if known is not None:
            if known.digest != digest:
                raise Conflict(f"the key id {key_id} is taken", "key_exists")
            return known
        if len(self._records) >= self._limits.max_keys:
            self._make_room(wall_ns)
        expires_ns = None if ttl_s is None else wall_ns + int(ttl_s * 1e9)
        key = ApiKey(
            key_id=key_id,
            robot_id=robot_id,
            name=name,
            created_at=rfc3339(wall_ns),
            expires_at=None if expires_ns is None else rfc3339(expires_ns),
        )
        return self._put(KeyRecord(key, digest, None if expires_ns is None else expires_ns / 1e9))

    def _make_room(self, wall_ns: int) -> None:
        dead = (key_id for key_id, record in self._records.items() if not record.live(wall_ns / 1e9))
        oldest = next(dead, None)
        if oldest is None:
            raise Busy(f"the fleet holds its limit of {self._limits.max_keys} keys", "full", 5.0)
        del self._records[oldest]

    def revoke(self, key_id: str, wall_ns: int) -> ApiKey:
        """A key that was revoked before stays as it was."""
        record = self._records.get(key_id)
        if record is None:
            raise NotFound(f"no key {key_id}")
        if record.key.revoked_at is None:
            revoked = msgspec.structs.replace(record.key, revoked_at=rfc3339(wall_ns))
            self._put(msgspec.structs.replace(record, key=revoked))
        return self._records[key_id].key

    def revoke_robot(self, robot_id: str, wall_ns: int) -> None:
        """A robot that is deleted takes its keys with it."""
        for key_id in [k for k, record in self._records.items() if record.key.robot_id == robot_id]:
            self.revoke(key_id, wall_ns)

    def records(self) -> list[KeyRecord]:
        return list(self._records.values())

    def take_changes(self) -> list[KeyRecord]:
        changes, self._changes = self._changes, []
        return changes

    def _put(self, record: KeyRecord) -> KeyRecord:
        self._records[record.key.key_id] = record
        self._changes.append(record)
        return record
