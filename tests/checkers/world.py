"""A small fleet in virtual time: robots and producers drive the real job store over a bad network.

Everything follows from the seed. Messages are lost, doubled, late and out of order; the server decides in
batches, answers after its commit, and dies with what was not committed; robots freeze past their leases and
forget what they held. After the troubles the network is good and every job comes to its end.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from checkers.history import AnyCall, AnyRecord, Evidence, Recorder, ops_of
from checkers.job_model import Bounds
from checkers.world_clients import Producer, Robot, told_of
from checkers.world_server import Server
from fleet.errors import FleetError
from fleet.job_store import JobStore
from fleet.limits import MS, SECOND, Limits
from fleet.messages import Answer, Parked

LIMITS = Limits(
    heartbeat_interval_ms=300,
    min_lease_ms=1_000,
    cancel_grace_ms=500,
    backoff_base_ms=100,
    backoff_max_ms=700,
    door_timeout_ms=3_000,
    long_poll_ms=1_000,
    max_pending=7,
)
BOUNDS = Bounds(lease_ns=LIMITS.lease_ms * MS, cancel_grace_ns=LIMITS.cancel_grace_ms * MS, timeouts=True)
TROUBLES_NS = 5 * SECOND
AT_MOST_NS = 60 * SECOND
ROBOTS, PRODUCERS = 4, 3
LOST, TWICE, LATE = 0.06, 0.08, 0.03  # of all messages


class World:
    def __init__(
        self,
        seed: int,
        make_store: Callable[[Limits, Random], JobStore] = JobStore,
        make_server: Callable[..., Server] = Server,
    ) -> None:
        self.rng = Random(seed)
        self.now_ns = 0
        self.records: list[AnyRecord] = []
        self.recorder = Recorder(self.records.append, lambda: self.now_ns)
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._tie = itertools.count()
        self.server = make_server(self, lambda: make_store(LIMITS, Random(seed)))
        self.robots = {name: Robot(self, name, 1 + n % 2) for n, name in enumerate("wxyz"[:ROBOTS])}
        self.producers = [Producer(self, f"p{n}") for n in range(PRODUCERS)]

    @property
    def calm(self) -> bool:
        return self.now_ns > TROUBLES_NS

    def after(self, ms: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now_ns + int(ms * MS), next(self._tie), act))

    def run(self) -> Evidence:
        while self.now_ns < AT_MOST_NS and not (self.calm and self._is_over()):
            self.now_ns, _, act = heapq.heappop(self._agenda)
            act()
        ops = sorted(ops_of(self.records), key=lambda op: op.invoked_ns)
        return Evidence(ops, self.server.finals(), drained=True)

    def _is_over(self) -> bool:
        return all(producer.idle for producer in self.producers) and self.server.drained()

    # -- the network

    def send(self, deliver: Callable[[], None], may_double: bool = True) -> None:
        if self.calm:
            self.after(2, deliver)
            return
        if self.rng.random() < LOST:
            return
        self.after(self._latency_ms(), deliver)
        if may_double and self.rng.random() < TWICE:
            self.after(self._latency_ms(), deliver)

    def _latency_ms(self) -> float:
        late = self.rng.random() < LATE
        return self.rng.uniform(300, 900) if late else self.rng.uniform(1, 40)

    def answer(self, answer: Answer) -> None:
        """The end of a parked claim."""
        robot = self.robots[answer.robot_id]
        self.send(lambda: robot.hear(answer))

    def tell_to_stop(self, robot_id: str, job_id: str) -> None:
        self.send(lambda: self.robots[robot_id].hear_stop(job_id))


class Exchange:
    """One call over the network: recorded, sent, and ended by the first answer or for want of one.
    `awake` runs what its client does when it is able to."""

    def __init__(
        self,
        world: World,
        process: str,
        call: AnyCall,
        command: Any,
        done: Callable[[Any], None],
        timeout_ms: float = 400,
        awake: Callable[[Callable[[], None]], None] = lambda act: act(),
        may_double: bool = True,
    ) -> None:
        self._world = world
        self._done = done
        self._awake = awake
        self.open = True
        self._first: list[Any] = []
        self._invoked = world.recorder.invoke(process, call)
        world.send(lambda: world.server.receive(command, self._reply), may_double)
        world.after(timeout_ms, lambda: awake(lambda: self.end(None)))

    def _reply(self, reply: Any) -> None:
        """Of a message that came twice, before and after a crash, the first answer counts."""
        self._first.append(reply)
        if not isinstance(self._first[0], Parked):
            self._world.send(lambda: self._awake(lambda: self.end(self._first[0])))

    def end(self, reply: Any) -> None:
        """`reply` None: no answer came in time."""
        if not self.open:
            return
        self.open = False
        recorder = self._world.recorder
        if reply is None:
            recorder.unknown(self._invoked)
        elif isinstance(reply, FleetError):
            recorder.fail(self._invoked, reply.code)
        else:
            recorder.ok(self._invoked, told_of(self._invoked.call, reply))
        self._done(reply)
