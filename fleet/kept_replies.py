"""First replies that outlive a restart, for those who did not hear them and ask again."""

from __future__ import annotations

from typing import Any

import msgspec

from fleet.dead_letters import Redriven
from fleet.errors import Full, PeerFault
from fleet.limits import SECOND, Limits
from fleet.messages import Cancelled, Keyed, Once

MINUTE = 60 * SECOND


class KeptReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of `job_ids`, `cancelled` and `redriven` is there. Of a submission the ids of its jobs are enough:
    how they looked at first can be told from what they are."""

    request_id: str
    fingerprint: str
    expires_wall_ns: int
    job_ids: list[str] | None = None
    cancelled: Cancelled | None = None
    redriven: Redriven | None = None


class KeptReplies:
    """All of them are in the journal; in memory are the newest, two generations that name `max_remembered`
    jobs each at most. Who decides about an older one reads it first, and `remember`s it.

    Bound: `max_replies` to requests with a key that have not expired; beyond, new ones are refused: to forget
    the oldest would be to do twice what was promised to be done once. Those without are kept `reply_s` and
    never refused: no job must run on because of other people's keys."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._young: dict[str, KeptReply] = {}
        self._old: dict[str, KeptReply] = {}
        self._young_weight = 0
        self._uncommitted = 0
        self._expiring: dict[int, int] = {}  # how many, by the minute
        self._total = 0
        self._minute = 0
        self.generation = 0  # changes when some were forgotten: what was missing before may be another now

    def __len__(self) -> int:
        """Those with a key that have not expired, wherever they are."""
        return self._total

    def restore(self, expiring: dict[int, int]) -> None:
        """How many the journal has, by the minute since 1970 in which they expire; those without a key too,
        which are few minutes' worth."""
        self._expiring = dict(expiring)
        self._total = sum(expiring.values())

    # -- what is in the journal only

    def missing(self, request_id: str) -> bool:
        return bool(request_id) and request_id not in self._young and request_id not in self._old

    def remember(self, kept: KeptReply) -> None:
        if self.missing(kept.request_id):
            self._old[kept.request_id] = kept

    def job_ids(self, command: Once) -> list[str]:
        """Those that a replay of this command shows, if there is to be one."""
        kept = self._young.get(command.request_id) or self._old.get(command.request_id)
        return kept.job_ids or [] if kept else []

    def committed(self, count: int) -> None:
        """So many more of those that were kept are in the journal."""
        self._uncommitted -= count
        if self._young_weight >= self._limits.max_remembered and self._uncommitted <= len(self._young):
            self._old, self._young, self._young_weight = self._young, {}, 0
            self.generation += 1

    # -- deciding

    def first(self, command: Once, wall_ns: int) -> KeptReply | None:
        """The reply to the first command of this `request_id`. Raises PeerFault if that was another."""
        kept = self._young.get(command.request_id) or self._old.get(command.request_id)
        if kept is None or kept.expires_wall_ns <= wall_ns:
            return None
        if kept.fingerprint != _fingerprint(command):
            detail = "this key was used for another request: take a new key for each"
            raise PeerFault(detail, "idempotency_key_reused")
        return kept

    def admit(self, command: Once, wall_ns: int) -> None:
        """Raises Full if there is no room for its reply."""
        self._drop_expired(wall_ns)
        if _fingerprint(command) and self._total >= self._limits.max_replies:
            detail = f"the fleet keeps its limit of {self._limits.max_replies} replies to requests with a key"
            raise Full(detail, "too_many_keys", 60.0)

    def keep(self, command: Once, wall_ns: int, **reply: Any) -> KeptReply:
        """For the journal. `reply` is one of the fields of KeptReply."""
        fingerprint = _fingerprint(command)
        lasts_s = self._limits.idempotency_s if fingerprint else self._limits.reply_s
        kept = KeptReply(command.request_id, fingerprint, wall_ns + lasts_s * SECOND, **reply)
        self._old.pop(kept.request_id, None)
        self._young[kept.request_id] = kept
        self._young_weight += 1 + len(kept.job_ids or ())
        self._uncommitted += 1
        if fingerprint:
            minute = kept.expires_wall_ns // MINUTE
            self._expiring[minute] = self._expiring.get(minute, 0) + 1
            self._total += 1
        return kept

    def _drop_expired(self, wall_ns: int) -> None:
        if wall_ns // MINUTE == self._minute:
            return
        self._minute = wall_ns // MINUTE
        for minute in [minute for minute in self._expiring if minute < self._minute]:
            self._total -= self._expiring.pop(minute)


def _fingerprint(command: Once) -> str:
    return command.fingerprint if isinstance(command, Keyed) else ""
