"""Every bound and period of the fleet, in one place, with the relations that must hold between them.

Units stand in the names: `_ms` milliseconds, `_s` seconds, `_bytes` bytes; the rest are counts.
"""

from __future__ import annotations

import msgspec

from fleet.errors import Misuse

MS = 1_000_000  # nanoseconds
SECOND = 1_000 * MS


# No aging makes it first come first served, whatever the priorities; no back-off tries again at once.
MAY_BE_ZERO = frozenset({"aging_ms_per_level", "backoff_base_ms"})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults are those of production; a test shortens what it would have to wait out."""

    heartbeat_interval_ms: int = 5_000
    # A fleet of more than 10,000 robots beats more slowly, to keep to this rate: a fifth of what one registry
    # was seen to carry with its 99th percentile unharmed, on 2 cores that also ran the door and the robots.
    # The rest is for watchers, who get every heartbeat, and for the hour when all robots come back at once.
    max_heartbeats_per_s: int = 2_000
    max_heartbeat_interval_ms: int = 60_000
    missed_heartbeats: int = 3
    min_lease_ms: int = 30_000
    lease_heartbeats: int = 3
    cancel_grace_ms: int = 10_000
    stuck_after_s: int = 600
    backoff_base_ms: int = 1_000
    backoff_max_ms: int = 300_000
    aging_ms_per_level: int = 60_000
    door_timeout_ms: int = 5_000
    deletion_ms: int = 30_000
    admission_ms: int = 1_000
    admission_memory_ms: int = 60_000
    long_poll_ms: int = 2_000
    wait_window_s: int = 300
    depth_interval_ms: int = 50
    live_jobs_interval_ms: int = 20
    refresh_ms: int = 1_000
    occupancy_interval_ms: int = 1_000
    tick_ms: int = 20
    clock_note_ms: int = 10_000
    clean_interval_ms: int = 60_000
    compact_interval_ms: int = 1_000
    retention_s: int = 7 * 86_400
    idempotency_s: int = 86_400
    reply_s: int = 600

    max_pending: int = 1_000_000
    max_live_bytes: int = 1024 * 1024 * 1024  # of payloads; one command may go beyond it
    max_finished: int = 10_000
    max_finished_bytes: int = 64 * 1024 * 1024
    max_page_bytes: int = 1024 * 1024
    max_redriven_bytes: int = 8 * 1024 * 1024
    max_snapshot_jobs: int = 10_000
    max_robots: int = 100_000
    max_keys: int = 100_000
    max_named_per_door: int = 500
    max_remembered: int = 100_000
    max_replies: int = 1_000_000
    max_progress_events: int = 1_000
    max_history_page: int = 1_000
    max_outranking: int = 10_000
    max_explained_robots: int = 20
    max_jobs_per_submit: int = 1_000
    max_claim_wait_ms: int = 30_000
    max_payload_bytes: int = 256 * 1024
    max_batch: int = 1_000
    max_backlog: int = 100_000
    feed_events: int = 20_000
    feed_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < (0 if name in MAY_BE_ZERO else 1):
                raise Misuse(f"{name} must be above 0")
        if self.max_batch > self.feed_events:
            raise Misuse("feed_events must hold at least one max_batch, or a reader could never catch up")
        if 2 * self.long_poll_ms > self.door_timeout_ms:
            raise Misuse("door_timeout_ms must be two long_poll_ms, or a door that polls seems to be silent")
        if 2 * self.occupancy_interval_ms > self.door_timeout_ms:
            raise Misuse(
                "door_timeout_ms must be two occupancy_interval_ms, or every door seems to be silent"
            )
        if 10 * self.admission_ms > self.admission_memory_ms:
            raise Misuse(
                "admission_memory_ms must be ten admission_ms, or a claim might be older than what ended it"
            )
        if self.tick_ms > self.depth_interval_ms:
            raise Misuse("tick_ms must not exceed depth_interval_ms")
        if self.tick_ms > 1_000:
            raise Misuse("tick_ms must not exceed 1,000: what has expired is found within a second")
        if self.live_jobs_interval_ms > self.refresh_ms:
            raise Misuse("live_jobs_interval_ms must not exceed refresh_ms, within which a feed is told")
        if self.retention_s < self.idempotency_s:
            raise Misuse(
                "retention_s must not be less than idempotency_s: a reply that is kept names its jobs"
            )
        if self.cancel_grace_ms > self.backoff_max_ms:
            raise Misuse("cancel_grace_ms must not exceed backoff_max_ms")
        if self.heartbeat_interval_ms > self.max_heartbeat_interval_ms:
            raise Misuse("max_heartbeat_interval_ms must not be less than heartbeat_interval_ms")
        if self.max_robots * 1_000 > self.max_heartbeats_per_s * self.max_heartbeat_interval_ms:
            raise Misuse("max_heartbeat_interval_ms must let max_robots keep to max_heartbeats_per_s")

    @property
    def lease_ms(self) -> int:
        """Of a robot that beats every `heartbeat_interval_ms`."""
        return self.lease_ms_at(self.heartbeat_interval_ms)

    def lease_ms_at(self, interval_ms: int) -> int:
        return max(self.min_lease_ms, self.lease_heartbeats * interval_ms)

    def offline_after_ms_at(self, interval_ms: int) -> int:
        return self.missed_heartbeats * interval_ms
