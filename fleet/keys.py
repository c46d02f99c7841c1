"""Robot API keys: their form, and the table of their hashes. The secrets themselves are never kept."""

from __future__ import annotations

import hashlib
import itertools
import math
import zlib
from collections.abc import Iterable

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
    """What the world may see of a key. `replaced_by` is the id of the key that took its place."""

    key_id: str
    robot_id: str
    name: str
    created_at: WallTime
    expires_at: WallTime | None = None
    revoked_at: WallTime | None = None
    replaced_by: str | None = None


class KeyRecord(msgspec.Struct, frozen=True):
    """A key as doors hold it. `expires_s` is in seconds since 1970, `ttl_s` the life that it was issued
    for, `number` its place in the order of issue."""

    key: ApiKey
    digest: str
    expires_s: float | None = None
    ttl_s: float | None = None
    number: int = 0

    @property
    def ends_s(self) -> float:
        """Only ever comes nearer, which tells the newer of two words on one key."""
        if self.key.revoked_at is not None:
            return -math.inf
        return math.inf if self.expires_s is None else self.expires_s

    def live(self, now_s: float) -> bool:
        return now_s < self.ends_s


class Rotated(msgspec.Struct, frozen=True):
    """The key that goes, and the one in its place."""

    old: KeyRecord
    new: KeyRecord


class KeyTable:
    """Keys are issued, then perhaps replaced, then perhaps revoked. Changed records pile up until
    `take_changes`. Bound: `max_keys`; then the oldest dead key makes room, and if none is dead, Busy."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._records: dict[str, KeyRecord] = {}  # in the order of issue
        self._changes: list[KeyRecord] = []
        self._forgotten: list[str] = []
        self._issued = 0

    def restore(self, records: Iterable[KeyRecord]) -> None:
        """Once, before the first command."""
        for record in sorted(records, key=lambda record: record.number):
            self._records[record.key.key_id] = record
            self._issued = max(self._issued, record.number)

    def take_forgotten(self) -> list[str]:
        """Ids of dead keys that made room since the last call."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def issue(
        self, key_id: str, robot_id: str, name: str, digest: str, ttl_s: float | None, wall_ns: int
    ) -> KeyRecord:
        """Idempotent on `key_id`, which the sender made."""
        known = self._records.get(key_id)
        if known is not None:
            if known.digest != digest:
                raise Conflict(f"the key id {key_id} is taken", "key_exists")
            return known
        self._make_room(wall_ns)
        self._issued += 1
        expires_ns = None if ttl_s is None else wall_ns + int(ttl_s * 1e9)
        key = ApiKey(
            key_id=key_id,
            robot_id=robot_id,
            name=name,
            created_at=rfc3339(wall_ns),
            expires_at=None if expires_ns is None else rfc3339(expires_ns),
        )
        expires_s = None if expires_ns is None else expires_ns / 1e9
        return self._put(KeyRecord(key, digest, expires_s, ttl_s, self._issued))

    def _make_room(self, wall_ns: int) -> None:
        if len(self._records) < self._limits.max_keys:
            return
        dead = (key_id for key_id, record in self._records.items() if not record.live(wall_ns / 1e9))
        oldest = next(dead, None)
        if oldest is None:
            raise Busy(f"the fleet holds its limit of {self._limits.max_keys} keys", "full", 5.0)
        del self._records[oldest]
        self._forgotten.append(oldest)

    def rotate(
        self, key_id: str, new_id: str, digest: str, ttl_s: float | None, grace_s: float, wall_ns: int
    ) -> Rotated:
        """A new key for the same robot, under the same name, for `ttl_s` or as long as the old one was issued
        for. The old one ends after `grace_s`, or at once. Idempotent on `new_id`, which the sender made.
        Raises NotFound, or Conflict for a key that is dead or was rotated before."""
        old = self._record(key_id)
        if old.key.replaced_by != new_id:
            self._check_rotatable(old, wall_ns)
            if new_id in self._records:
                raise Conflict(f"the key id {new_id} is taken", "key_exists")
            self._make_room(wall_ns)  # raises before anything has changed
            old = self._put(_replaced(old, new_id, grace_s, wall_ns))
        ttl_s = old.ttl_s if ttl_s is None else ttl_s
        return Rotated(old, self.issue(new_id, old.key.robot_id, old.key.name, digest, ttl_s, wall_ns))

    def _check_rotatable(self, old: KeyRecord, wall_ns: int) -> None:
        key = old.key
        if key.replaced_by is not None:
            raise Conflict(f"the key {key.key_id} was replaced by {key.replaced_by}: rotate that", "rotated")
        if not old.live(wall_ns / 1e9):
            how = "has expired" if key.revoked_at is None else "is revoked"
            raise Conflict(f"the key {key.key_id} {how}: issue a new one", "dead_key")

    def revoke(self, key_id: str, wall_ns: int) -> ApiKey:
        """A key that was revoked before stays as it was."""
        record = self._record(key_id)
        if record.key.revoked_at is None:
            revoked = msgspec.structs.replace(record.key, revoked_at=rfc3339(wall_ns))
            record = self._put(msgspec.structs.replace(record, key=revoked))
        return record.key

    def revoke_robot(self, robot_id: str, wall_ns: int) -> None:
        """A robot that is deleted takes its keys with it."""
        for key_id in [k for k, record in self._records.items() if record.key.robot_id == robot_id]:
            self.revoke(key_id, wall_ns)

    def records(self) -> list[KeyRecord]:
        return list(self._records.values())

    def page(self, robot_id: str | None, before: int, limit: int) -> tuple[list[ApiKey], int]:
        """Newest first, those issued before number `before` (0: all); the second value is where the next
        page goes on, 0 at the end."""
        found = (
            record
            for record in reversed(self._records.values())
            if (not before or record.number < before) and robot_id in (None, record.key.robot_id)
        )
        page = list(itertools.islice(found, limit + 1))
        following = page[limit - 1].number if len(page) > limit else 0
        return [record.key for record in page[:limit]], following

    def take_changes(self) -> list[KeyRecord]:
        changes, self._changes = self._changes, []
        return changes

    def _record(self, key_id: str) -> KeyRecord:
        record = self._records.get(key_id)
        if record is None:
            raise NotFound(f"no key {key_id[:64]}")
        return record

    def _put(self, record: KeyRecord) -> KeyRecord:
        self._records[record.key.key_id] = record
        self._changes.append(record)
        return record


def _replaced(record: KeyRecord, new_id: str, grace_s: float, wall_ns: int) -> KeyRecord:
    """A grace does not lengthen a life that ends sooner."""
    key = msgspec.structs.replace(record.key, replaced_by=new_id)
    if grace_s <= 0:
        return msgspec.structs.replace(record, key=msgspec.structs.replace(key, revoked_at=rfc3339(wall_ns)))
    ends_ns = wall_ns + int(grace_s * 1e9)
    if ends_ns / 1e9 >= record.ends_s:
        return msgspec.structs.replace(record, key=key)
    key = msgspec.structs.replace(key, expires_at=rfc3339(ends_ns))
    return msgspec.structs.replace(record, key=key, expires_s=ends_ns / 1e9)
