"""Makes the actors: names, namespace, restarts and placement, all in one table."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import msgspec
import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors import stores
from actors.broadcaster import Broadcaster, MetricsBroadcaster
from actors.client import FleetClient, Rooms, Snapshot, ray_rooms
from actors.job_store import JobStoreRoom
from actors.ray_room import RayRoom
from actors.registry import RegistryRoom
from actors.stores import MEMORY
from fleet.errors import Misuse, Unavailable
from fleet.events import FEEDS, KEYS, LIVE_JOBS, METRICS, QUEUE_METRICS, ROBOT_STATUS
from fleet.limits import Limits

JOB_STORE = "job-store"
REGISTRY = "robot-registry"
START_S = 120.0
SERVER_ACTORS = tuple(
    role.__name__ for role in (JobStoreRoom, RegistryRoom, Broadcaster, MetricsBroadcaster)
)  # Ray names their processes so


def broadcaster_name(feed: str) -> str:
    return f"broadcaster-{feed}"


class Supervisor(msgspec.Struct):
    """Of one fleet: all its actors share a namespace. `lasting` actors outlive the driver; `store` is where
    the fleet keeps what must survive (see `actors.stores`)."""

    namespace: str
    limits: Limits
    version: str = ""
    lasting: bool = False
    store: str = MEMORY
    # An actor that is not detached ends with its last handle: these keep it.
    _held: list[Any] = []

    def start(self) -> Rooms:
        """Finds or makes every actor; safe to call from several doors, one after another. Raises
        StoreRefused or Unavailable, before any is made."""
        if self._first():
            stores.check(self.store, self.namespace, self.limits)
        began_ns = time.time_ns()
        feeds = {
            name: self._actor(broadcaster_name(name), Broadcaster, self.limits)
            for name in FEEDS
            if name != METRICS
        }
        given = (self.limits, feeds[LIVE_JOBS], feeds[QUEUE_METRICS], self.store, self.namespace, began_ns)
        job_store = self._actor(JOB_STORE, JobStoreRoom, *given)
        place = (self.limits, feeds[ROBOT_STATUS], feeds[KEYS], self.store, self.namespace)
        registry = self._actor(REGISTRY, RegistryRoom, *place)
        rooms = ray_rooms(job_store, registry, feeds)
        snapshot = Snapshot(rooms.job_store, rooms.registry, self.version)
        feeds[METRICS] = self._actor(broadcaster_name(METRICS), MetricsBroadcaster, self.limits, snapshot)
        self._wait_until_ready()
        return ray_rooms(job_store, registry, feeds)

    def _wait_until_ready(self) -> None:
        """A store that holds much takes seconds to read. A call that is lost is made again."""
        until = time.monotonic() + START_S
        for name in (JOB_STORE, REGISTRY):
            try:
                self._wait_for(name, until)
            except ray.exceptions.RayError as error:
                why = type(error).__name__
                raise Unavailable(f"the fleet does not start ({why}): see its log") from None

    def _wait_for(self, name: str, until: float) -> None:
        room = ray.get_actor(name, self.namespace)
        while True:
            left = until - time.monotonic()
            try:
                ray.get(room.pulse.remote(), timeout=max(0.0, left))
                return
            except ray.exceptions.ActorUnavailableError:
                if left <= 0:
                    raise
                time.sleep(0.1)

    def _first(self) -> bool:
        try:
            ray.get_actor(JOB_STORE, self.namespace)
        except ValueError:
            return True
        return False

    def find(self) -> Rooms:
        """The rooms of a fleet that runs already. Raises Misuse if none does."""
        if self._first():
            raise Misuse(
                f"no fleet runs in the Ray namespace {self.namespace!r}: start one with fleetcast serve"
            )
        feeds = {name: RayRoom(broadcaster_name(name), self.namespace) for name in FEEDS}
        return ray_rooms(RayRoom(JOB_STORE, self.namespace), RayRoom(REGISTRY, self.namespace), feeds)

    def client(self) -> FleetClient:
        return FleetClient(self.start(), self.limits, self.version)

    def simulator(self, name: str, role: type, *args: Any) -> RayRoom:
        """An actor of `role`, which ends with its driver; its methods are called as if it were here."""
        return self._simulator(name, role, args, "SPREAD")

    def simulator_everywhere(self, name: str, role: type, *args: Any) -> list[RayRoom]:
        """One on each node that is there."""
        known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = [node["NodeID"] for node in known if node["Alive"]]
        return [
            self._simulator(f"{name}-{node}", role, args, NodeAffinitySchedulingStrategy(node, soft=False))
            for node in nodes
        ]

    def _simulator(self, name: str, role: type, args: tuple[Any, ...], strategy: Any) -> RayRoom:
        options = {"lifetime": None, "max_restarts": 0, "scheduling_strategy": strategy}
        self._held.append(self._make(name, role, args, **options))
        return RayRoom(name, self.namespace)

    def kill(self, name: str) -> None:
        """It is started again. Raises ValueError for an actor that is not there."""
        ray.kill(ray.get_actor(name, self.namespace), no_restart=False)

    def process_of(self, name: str) -> int:
        """Its process id, on its own node."""
        actor: Any = ray.get_actor(name, self.namespace)
        pid: int = ray.get(actor.__ray_call__.remote(_pid))
        return pid

    def stop(self) -> int:
        """Ends every actor of the fleet; returns how many there were."""
        names = [JOB_STORE, REGISTRY, *map(broadcaster_name, FEEDS)]
        ended = 0
        for name in names:
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(name, self.namespace))
                ended += 1
        return ended

    def _actor(self, name: str, role: type, *args: Any) -> RayRoom:
        lifetime = "detached" if self.lasting else None
        options = {"lifetime": lifetime, "max_restarts": -1, **self._pin(name)}
        self._held.append(self._make(name, role, args, **options))
        return RayRoom(name, self.namespace)

    def _pin(self, name: str) -> dict[str, Any]:
        """Those who write to files stay where the files are."""
        if name not in (JOB_STORE, REGISTRY) or not stores.pinned(self.store):
            return {}
        here = ray.get_runtime_context().get_node_id()
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}

    def _make(self, name: str, role: type, args: tuple[Any, ...], **options: Any) -> Any:
        made: Any = ray.remote(role).options(
            name=name, namespace=self.namespace, get_if_exists=True, num_cpus=0, **options
        )
        return made.remote(*args)


def _pid(actor: Any) -> int:
    return os.getpid()


def connect(address: str | None, namespace: str, num_cpus: int | None) -> None:
    """Joins the cluster at `address`, or starts one of our own on this machine."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a notice of its future
    common: dict[str, Any] = {"namespace": namespace, "logging_level": "ERROR", "log_to_driver": True}
    if address:
        ray.init(address=address, **common)
    else:
        ray.init(num_cpus=num_cpus, include_dashboard=False, **common)
