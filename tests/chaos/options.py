"""What a run is to be like, and how the server is set up for it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

BEAT_MS = 1_000
# What a run would otherwise have to wait out. So little in memory that old jobs and replies are read again,
# and that every bound is reached within minutes: what still grows then is a leak.
LIMITS = {
    "heartbeat_interval_ms": BEAT_MS,
    "missed_heartbeats": 5,  # a call that is lost, and lost again, takes two seconds of them
    "min_lease_ms": 3 * BEAT_MS,
    "cancel_grace_ms": 3_000,
    "backoff_base_ms": 200,
    "max_finished": 1_000,
    "max_remembered": 2_000,
    "feed_events": 5_000,
}
# One call in fifty between processes of the fleet is lost, or its answer is.
LOSSES = {
    "CoreWorkerService.grpc_client.PushTask": {
        "num_failures": -1,
        "req_failure_prob": 1,
        "resp_failure_prob": 1,
    }
}
# How long a caller waits to learn whether the other is dead, before a lost call is told as such.
NOT_FOR_LONG = {
    "RAY_timeout_ms_task_wait_for_death_info": "200",
    "RAY_core_worker_internal_heartbeat_ms": "100",
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    seconds: float
    every_s: float
    robots: int
    jobs_per_s: float
    store: str = ""
    losses: bool = True
    folder: Path


def environment(options: Options) -> dict[str, str]:
    given = {"FLEETCAST_LIMITS": json.dumps(LIMITS)}
    if options.losses:
        [by_wire] = LOSSES.values()
        given |= {"RAY_testing_rpc_failure": json.dumps(LOSSES), "_FLEETCAST_WIRES": json.dumps(by_wire)}
        given |= NOT_FOR_LONG
    return given
