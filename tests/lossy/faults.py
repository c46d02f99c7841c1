"""What Ray is told to do to calls of actors, as environment."""

from __future__ import annotations

import json
from typing import Literal

from actors.failpoints import LOSSES as LOSSES
from actors.failpoints import Loss

Way = Literal["ray", "wire"]
WAYS: tuple[Way, ...] = ("ray", "wire")
_KEY: dict[Loss, str] = {
    "request": "req_failure_prob",
    "response": "resp_failure_prob",
    "in_flight": "in_flight_failure_prob",
}


def losing(loss: Loss, calls: int, way: Way = "ray") -> dict[str, str]:
    """The first `calls` of a process by Ray, or of each caller by wire, every one: not sent; carried out, and
    the answer lost; or thought lost while it is being carried out."""
    fault = {"num_failures": calls, **dict.fromkeys(_KEY.values(), 0), _KEY[loss]: 100}
    if way == "wire":
        return {"_FLEETCAST_WIRES": json.dumps(fault)}
    return {
        "_FLEETCAST_WIRES": "off",
        "RAY_testing_rpc_failure": json.dumps({"CoreWorkerService.grpc_client.PushTask": fault}),
        # How long a caller waits to learn whether the other is dead, before a lost call is told as such.
        "RAY_timeout_ms_task_wait_for_death_info": "50",
        "RAY_core_worker_internal_heartbeat_ms": "50",
    }


def delaying(up_to_ms: int) -> dict[str, str]:
    """Calls that come in, each by a time of its own."""
    delay = f"CoreWorkerService.grpc_server.PushTask=0:{up_to_ms * 1_000}"
    return {"RAY_testing_asio_delay_us": delay, "_FLEETCAST_WIRES": "off"}
