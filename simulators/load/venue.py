"""What a load test is given to play on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from simulators.scenario import ActorFault

Spawn = Callable[..., Any]  # (name, class, *arguments) -> the actor, or what looks like it
SpawnEverywhere = Callable[..., list[Any]]  # the same, on each node that makes load
HarmActor = Callable[[ActorFault], Awaitable[None]]  # of the fleet under test


@dataclass(frozen=True)
class Venue:
    """A server that answers, and where actors can be made. `server_actors` are the classes of the server's
    own, by which its processes are known on our nodes; without `harm_actor` they are out of reach."""

    url: str
    token: str
    spawn: Spawn
    spawn_everywhere: SpawnEverywhere
    server_actors: frozenset[str] = frozenset()
    harm_actor: HarmActor | None = None
