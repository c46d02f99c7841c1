"""What is done to whom, and when: decided before the run, by its seed alone."""

from __future__ import annotations

from math import ceil
from random import Random
from typing import Literal

import msgspec

Actor = Literal["job-store", "registry", "broadcaster", "metrics"]
Act = Literal["kill", "stop"]
Harm = Literal["vanish", "leave", "freeze", "reset"]
SHORT_STOP_S = 2.0
LONG_STOP_S = (5.0, 15.0)
ROBOT_FAULTS_PER_S = 0.7


class ActorFault(msgspec.Struct, frozen=True):
    """`dice` in [0, 1) tells which, of several of a kind. A stop is over after `for_s`."""

    at_s: float
    act: Act
    actor: Actor
    dice: float
    for_s: float = 0.0


class RobotFault(msgspec.Struct, frozen=True):
    """`vanish`: for ever; `leave`: its socket drops, and it comes back after `for_s`; `freeze`: it hears
    and says nothing for `for_s`, then acts on what it believes; `reset`: its socket is reset, once."""

    at_s: float
    harm: Harm
    dice: float
    for_s: float = 0.0


class Plan(msgspec.Struct, frozen=True):
    actors: list[ActorFault]
    robots: list[RobotFault]


Card = tuple[Act, Actor, Literal["", "short", "long"]]
# A short run has at least these; then come all, in ever new orders.
FIRST: list[Card] = [
    ("kill", "job-store", ""),
    ("kill", "registry", ""),
    ("kill", "broadcaster", ""),
    ("stop", "registry", "long"),
    ("stop", "job-store", "long"),
]
ALL: list[Card] = [
    *FIRST,
    ("kill", "job-store", ""),
    ("kill", "broadcaster", ""),
    ("kill", "metrics", ""),
    ("stop", "job-store", "short"),
    ("stop", "registry", "short"),
    ("stop", "broadcaster", "short"),
    ("stop", "broadcaster", "long"),
]


def plan(seed: int, seconds: float, every_s: float, lease_s: float) -> Plan:
    """Faults of actors `every_s`, the first after one such pause; of robots at random times."""
    return Plan(
        _actors(Random(f"{seed} actors"), seconds, every_s),
        _robots(Random(f"{seed} robots"), seconds, lease_s),
    )


def _actors(rng: Random, seconds: float, every_s: float) -> list[ActorFault]:
    deck = _shuffled(FIRST, rng)
    faults = []
    for number in range(1, ceil(seconds / every_s)):
        act, actor, length = deck.pop(0)
        at_s = number * every_s
        for_s = {"": 0.0, "short": SHORT_STOP_S, "long": rng.uniform(*LONG_STOP_S)}[length]
        faults.append(ActorFault(at_s, act, actor, rng.random(), min(for_s, seconds - at_s)))
        deck = deck or _shuffled(ALL, rng)
    return faults


def _shuffled(cards: list[Card], rng: Random) -> list[Card]:
    return rng.sample(cards, len(cards))


def _robots(rng: Random, seconds: float, lease_s: float) -> list[RobotFault]:
    faults = []
    at_s = rng.expovariate(ROBOT_FAULTS_PER_S)
    while at_s < seconds:
        harm: Harm = rng.choices(("vanish", "leave", "freeze", "reset"), (2, 3, 4, 3))[0]
        for_s = {
            "vanish": 0.0,
            "leave": rng.uniform(0.5, 4 * lease_s),
            "freeze": lease_s + rng.uniform(0.5, lease_s),
            "reset": 0.0,
        }[harm]
        faults.append(RobotFault(at_s, harm, rng.random(), for_s))
        at_s += rng.expovariate(ROBOT_FAULTS_PER_S)
    return faults
