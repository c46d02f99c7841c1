"""The same heartbeats by Locust, with a WebSocket user as its documentation shows one."""

from __future__ import annotations

import json
import os
import time

from locust import User, constant_pacing, task  # type: ignore[import-not-found]
from websocket import create_connection  # type: ignore[import-not-found]


class Robot(User):  # type: ignore[misc]
    wait_time = constant_pacing(float(os.environ["INTERVAL_S"]))

    def on_start(self) -> None:
        self.socket = create_connection(os.environ["WS_URL"])

    @task
    def beat(self) -> None:
        began = time.perf_counter()
        beat = {"type": "heartbeat", "cpu_percent": 12.5, "memory_mb": 512.25}
        self.socket.send(json.dumps(beat))
        answer = self.socket.recv()
        self.environment.events.request.fire(
            request_type="WS",
            name="heartbeat",
            response_time=(time.perf_counter() - began) * 1_000,
            response_length=len(answer),
            exception=None,
            context={},
        )
