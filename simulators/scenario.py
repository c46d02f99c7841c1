"""What a simulation is of: one model for load over the network and for virtual time.

What is left out is off. Rates are per second and of all robots together; times are written with their unit. A
scenario says what is to happen, never how it went.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from fleet import messages
from fleet.errors import Misuse
from simulators.distributions import (
    Distribution,
    Duration,
    Part,
    Patience,
    Period,
    Probability,
    Rate,
    Wrong,
)

Endpoint = Literal["robot-status", "live-jobs", "queue-metrics", "metrics-stream"]
Actor = Literal["job_store", "registry", "robot_status", "live_jobs", "queue_metrics"]
MAX_ROBOTS = 1_000_000
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")]


def _as_on_the_wire(kind: Any) -> Callable[[Any], Any]:
    """What a robot or a job could not say to a server, a scenario cannot say either."""

    def check(written: Any) -> Any:
        try:
            return msgspec.convert(written, kind)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None

    return check


Label = Annotated[str, BeforeValidator(_as_on_the_wire(messages.Label))]
Capabilities = Annotated[list[str], BeforeValidator(_as_on_the_wire(messages.Capabilities))]
LEAST_S = 1e-6  # of what happens again and again: time must go on


def _lasting(drawn: Distribution) -> Distribution:
    if drawn.mean_s < LEAST_S:
        raise ValueError("this must take a millionth of a second on average, or more: time must go on")
    return drawn


def _stay(value: float) -> float:
    if value < 0.001:
        raise ValueError("this must last a thousandth of a second or more")
    return value


Lasting = Annotated[Distribution, AfterValidator(_lasting)]
Stay = Annotated[Period, AfterValidator(_stay)]
Multiple = Annotated[float, Field(ge=0, le=1_000)]


# -- time


class Ramp(Part):
    """In a straight line from the load before it to `load`, in multiples of the arrivals' rate."""

    kind: Literal["ramp"]
    lasts: Period
    load: Multiple


class Hold(Part):
    """At one load. `soak` is a long one, after which it is judged whether memory still grows."""

    kind: Literal["hold", "soak"]
    lasts: Period
    load: Multiple = 1.0


class Spike(Part):
    """At once to `load`, and at once back to the load before it."""

    kind: Literal["spike"]
    lasts: Period
    load: Multiple


Stage = Annotated[Ramp | Hold | Spike, Field(discriminator="kind")]


class Segment(msgspec.Struct, frozen=True):
    """A time in which the load goes in a straight line from `load` to `load_after`."""

    begins_s: float
    ends_s: float
    load: float
    load_after: float

    def load_at(self, at_s: float) -> float:
        part = (at_s - self.begins_s) / (self.ends_s - self.begins_s)
        return self.load + (self.load_after - self.load) * part


# -- robots


class Heartbeats(Part):
    """A share of `jitter` of each interval is random, so that a fleet does not beat in step. `loss`: of
    those that never arrive, in virtual time; over a network, TCP makes them late instead."""

    interval: Period
    jitter: Probability = 0.1
    loss: Probability = 0.0


class Gauge(Part):
    """A figure that robots report: it wanders about `mean` and stays within its bounds."""

    mean: Annotated[float, Field(ge=0, le=1e6)]
    spread: Annotated[float, Field(ge=0, le=1e6)] = 0.0


class Flapping(Part):
    """The network of a robot is up, then down, in turn."""

    up: Distribution
    down: Distribution


class Network(Part):
    """Between a robot and the door. A lost packet is one that comes late, as TCP has it."""

    latency: Distribution | None = None
    loss: Probability = 0.0
    flapping: Flapping | None = None


class Breakdowns(Part):
    """A robot works for `up`, then is broken until somebody of the repair crew has spent `repair` on it; in
    virtual time only. `counts`: whether it wears all the time or only while it works. `job`: what becomes of
    the one that it was at: it `resumes` where it was, or `restarts` there, once the robot is mended; or it
    goes back to the queue's `head`, for whoever is free."""

    up: Lasting
    repair: Lasting
    counts: Literal["working", "always"] = "always"
    job: Literal["resumes", "restarts", "head"] = "resumes"


class Fleet(Part):
    """Robots that are alike. `drive`: a socket each, or gateways that speak for `robots_per_gateway`.
    `speed`: how fast they work, in multiples of a job's service time. `reads`: how often each asks for a job
    over HTTP."""

    count: Annotated[int, Field(ge=1, le=MAX_ROBOTS)]
    heartbeats: Heartbeats
    drive: Literal["sockets", "gateways"] = "sockets"
    robots_per_gateway: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    environment: Label = "development"
    capabilities: Capabilities = []
    max_concurrent_jobs: Annotated[int, Field(ge=1, le=100)] = 1
    speed: Annotated[float, Field(ge=0.001, le=1_000)] = 1.0
    failure_probability: Probability = 0.0
    reads: Period | None = None
    cpu_percent: Gauge | None = None
    memory_mb: Gauge | None = None
    network: Network | None = None
    breakdowns: Breakdowns | None = None

    @model_validator(mode="after")
    def _one_at_a_time(self) -> Fleet:
        if self.breakdowns is not None and self.max_concurrent_jobs > 1:
            raise ValueError("robots that break do one job at a time: leave max_concurrent_jobs out")
        return self


# -- jobs


class JobClass(Part):
    """`weight`: of all arrivals, this share has this class. `patience`: how long a job waits before it gives
    up. `each_attempt`: whether it takes the `same` time again, or another, in virtual time only.
    `progress_per_job`: how often a robot tells how far it is."""

    service: Distribution
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    priority: Annotated[int, Field(ge=0, le=20)] = 10
    environment: Label | None = None
    required_capabilities: Capabilities = []
    max_attempts: Annotated[int, Field(ge=1, le=1_000)] = 3
    timeout: Period | None = None
    patience: Patience | None = None
    each_attempt: Literal["same", "anew"] = "same"
    progress_per_job: Annotated[int, Field(ge=0, le=1_000)] = 0


class ConstantArrivals(Part):
    kind: Literal["constant"]
    rate: Rate


class PoissonArrivals(Part):
    kind: Literal["poisson"]
    rate: Rate


class RenewalArrivals(Part):
    """The times between one and the next are independent of each other, and drawn from one distribution."""

    kind: Literal["renewal"]
    between: Lasting


class MmppArrivals(Part):
    """Markov-modulated: Poisson at one rate after the other, each for an exponential time."""

    kind: Literal["mmpp"]
    rates: Annotated[list[Annotated[float, Field(ge=0, le=1e6)]], Field(min_length=2, max_length=10)]
    mean_stays: Annotated[list[Stay], Field(min_length=2, max_length=10)]

    @model_validator(mode="after")
    def _whole(self) -> MmppArrivals:
        if len(self.rates) != len(self.mean_stays):
            raise ValueError("rates and mean_stays must be as many")
        if not any(self.rates):
            raise ValueError("one rate at least must be above 0")
        return self


class SinusoidArrivals(Part):
    """Poisson at rate (1 + amplitude sin(2 pi t / period))."""

    kind: Literal["sinusoid"]
    rate: Rate
    amplitude: Probability
    period: Period


class BatchArrivals(Part):
    """`rate` batches a second, Poisson, each of `smallest` to `largest` jobs, all sizes alike."""

    kind: Literal["batches"]
    rate: Rate
    smallest: Annotated[int, Field(ge=1, le=100_000)]
    largest: Annotated[int, Field(ge=1, le=100_000)]

    @model_validator(mode="after")
    def _ordered(self) -> BatchArrivals:
        if self.smallest > self.largest:
            raise ValueError("smallest must not be above largest")
        return self


class TraceArrivals(Part):
    """From a CSV file beside the scenario: a line per job, first its time in seconds from the beginning. With
    a heading, a column `service_s` says how long it takes, and a column `class` what it is."""

    kind: Literal["trace"]
    file: Annotated[str, Field(min_length=1, max_length=1_000)]


class ClosedArrivals(Part):
    """Closed model: each user submits a job, waits for its end, thinks, and submits the next."""

    kind: Literal["closed"]
    users: Annotated[int, Field(ge=1, le=1_000_000)]
    think: Lasting


Arrivals = Annotated[
    ConstantArrivals
    | PoissonArrivals
    | RenewalArrivals
    | MmppArrivals
    | SinusoidArrivals
    | BatchArrivals
    | TraceArrivals
    | ClosedArrivals,
    Field(discriminator="kind"),
]


class Jobs(Part):
    arrivals: Arrivals
    classes: Annotated[dict[Name, JobClass], Field(min_length=1, max_length=100)]


# -- how jobs wait


class Discouraged(Part):
    """A job that finds n others there stays with probability 1 / (n + 1)."""

    kind: Literal["discouraged"]


class Joins(Part):
    """A job that finds n others there stays with the n-th of these, counted from 0; beyond the last one, with
    that."""

    kind: Literal["table"]
    probabilities: Annotated[list[Probability], Field(min_length=1, max_length=10_000)]


class Backoff(Part):
    """What a job that failed waits before it is due again: up to `base`, twice that after each further
    attempt, `most` in the end, all alike. Nothing with a `base` of 0s."""

    base: Duration
    most: Duration

    @model_validator(mode="after")
    def _ordered(self) -> Backoff:
        if self.base > self.most:
            raise ValueError("base must not be above most")
        return self


class Queue(Part):
    """How jobs wait. What is not production's is played in virtual time only.

    `discipline`: `production` is that of the fleet: by priority, which grows with waiting (`aging` is what
    one level is worth; 0s makes it first come first served). `priority` is strict. `preemptive` interrupts
    for whoever is more urgent, and goes on later where it was. `capacity`: jobs there at once, waiting or
    served; more are turned away. `balking`: whether one that arrives stays."""

    discipline: Literal["production", "fifo", "lifo", "random", "priority", "preemptive"] = "production"
    capacity: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    balking: Annotated[Discouraged | Joins, Field(discriminator="kind")] | None = None
    aging: Duration | None = None
    backoff: Backoff | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Queue:
        if self.aging is not None and self.discipline != "production":
            raise ValueError("`aging` goes with the discipline production, and only with it")
        return self


# -- watchers, faults


class Watchers(Part):
    """`behaviour`: `slow` ones read a frame per `every`; `reconnecting` ones begin anew, `resuming` ones
    where they were, after each `every`; `garbage` says what no watcher should. `conflate`: the latest per
    robot, so often."""

    endpoint: Endpoint
    count: Annotated[int, Field(ge=1, le=100_000)]
    behaviour: Literal["well", "slow", "reconnecting", "resuming", "garbage"] = "well"
    every: Period | None = None
    conflate: Period | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Watchers:
        if (self.behaviour in ("slow", "reconnecting", "resuming")) != (self.every is not None):
            raise ValueError("`every` goes with slow, reconnecting and resuming watchers, and only with them")
        if self.conflate is not None and self.endpoint != "robot-status":
            raise ValueError("only robot-status can be conflated")
        return self


class ActorFault(Part):
    """`stop_actor` freezes it for `lasts`; a killed one is started again by the fleet."""

    kind: Literal["kill_actor", "stop_actor"]
    at: Duration
    actor: Actor
    lasts: Period | None = None

    @model_validator(mode="after")
    def _sensible(self) -> ActorFault:
        if (self.kind == "stop_actor") != (self.lasts is not None):
            raise ValueError("`lasts` goes with stop_actor, and only with it")
        return self


class RobotFault(Part):
    """`share` of a fleet vanishes without a goodbye, and comes back after `lasts`, if that is given."""

    kind: Literal["kill_robots"]
    at: Duration
    fleet: Name
    share: Annotated[float, Field(gt=0, le=1)]
    lasts: Period | None = None


class WatcherFault(Part):
    """All watchers lose their connection at once, and all come back."""

    kind: Literal["drop_watchers"]
    at: Duration


Fault = Annotated[ActorFault | RobotFault | WatcherFault, Field(discriminator="kind")]


# -- thresholds

_THRESHOLD = re.compile(r"(<=|<|>=|>) ?(\d+(?:\.\d+)?) ?(ms|s|/s)?")
LATENCIES = (
    "heartbeat_to_watcher",
    "heartbeat_to_conflated",
    "job_to_watcher",
    "submit",
    "grant",
    "life",
    "read",
)
QUANTILES = ("p50", "p90", "p95", "p99", "p999", "max")
RATES = ("heartbeats_per_s", "jobs_per_s")
COUNTS = tuple(
    f"{things}_{fate}"
    for things, fates in {
        "jobs": ("lost", "duplicated", "failed"),
        "events": ("lost", "duplicated", "reordered"),
    }.items()
    for fate in fates
)
# Of every metric that can be judged.
UNITS = {
    **{f"{latency}_{quantile}": "ms" for latency in LATENCIES for quantile in QUANTILES},
    **dict.fromkeys(RATES, "/s"),
    **dict.fromkeys(COUNTS, ""),
}


class Threshold(Part):
    """What a metric must be. `unit` is that of the value: "ms" for a latency, "/s" for a rate."""

    comparison: Literal["<", "<=", ">", ">=", "=="]
    value: Annotated[float, Field(ge=0)]
    unit: Literal["ms", "/s", ""] = ""


def _threshold(written: Any) -> Any:
    """`"< 100ms"`, `">= 20/s"`, or a number that it must be."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        return Threshold(comparison="==", value=float(written))
    match = _THRESHOLD.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        raise ValueError('a threshold is a number, or a comparison such as "< 100ms" or ">= 20/s"')
    comparison, value, unit = match[1], float(match[2]), match[3] or ""
    if unit == "s":
        value, unit = value * 1_000, "ms"
    return Threshold.model_validate({"comparison": comparison, "value": value, "unit": unit})


def _check_threshold(metric: str, threshold: Threshold) -> None:
    unit = UNITS.get(metric)
    if unit is None:
        near = difflib.get_close_matches(metric, UNITS, 3) or UNITS
        raise Wrong(f"there is no such metric; there is {', '.join(near)}", "thresholds", metric)
    if threshold.unit != unit:
        what = f"in {unit}" if unit else "a number without a unit"
        raise Wrong(f"this is {what}", "thresholds", metric)


def thresholds_of(written: dict[str, Any]) -> dict[str, Threshold]:
    """As a scenario's, from elsewhere. Raises Misuse."""
    try:
        found = {metric: _threshold(value) for metric, value in written.items()}
        for metric, threshold in found.items():
            _check_threshold(metric, threshold)
    except ValueError as error:
        raise Misuse(f"{', '.join(written)}: {error}") from None
    return found


def _written(threshold: Threshold) -> float | str:
    """As `_threshold` reads it."""
    if threshold.comparison == "==":
        return threshold.value
    return f"{threshold.comparison} {Decimal(repr(threshold.value)):f}{threshold.unit}"


Judged = Annotated[
    Threshold,
    BeforeValidator(_threshold),
    PlainSerializer(_written),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{_THRESHOLD.pattern}$"}]}),
]


# -- all of it


class Scenario(Part):
    name: Name
    description: Annotated[str, Field(max_length=10_000)] = ""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    duration: Period | None = None
    stages: Annotated[list[Stage], Field(max_length=1_000)] = []
    fleets: Annotated[dict[Name, Fleet], Field(max_length=100)] = {}
    jobs: Jobs | None = None
    queue: Queue = Queue()
    repair_crew: Annotated[int, Field(ge=1, le=MAX_ROBOTS)] | None = None
    watchers: Annotated[dict[Name, Watchers], Field(max_length=100)] = {}
    faults: Annotated[list[Fault], Field(max_length=1_000)] = []
    thresholds: Annotated[dict[str, Judged], Field(max_length=100)] = {}

    @model_validator(mode="after")
    def _whole(self) -> Scenario:
        if (self.duration is None) == (not self.stages):
            raise ValueError("it takes either a duration or stages")
        if not (self.fleets or self.jobs or self.watchers):
            raise ValueError("it needs fleets, jobs or watchers: nothing would happen")
        if (
            self.jobs is not None
            and isinstance(self.jobs.arrivals, TraceArrivals | RenewalArrivals | ClosedArrivals)
            and self.stages
        ):
            kind = self.jobs.arrivals.kind
            raise Wrong(f"{kind} arrivals have no rate that stages could change: give a duration", "stages")
        if self.repair_crew is not None and not any(fleet.breakdowns for fleet in self.fleets.values()):
            raise Wrong("no robot breaks: give a fleet breakdowns, or leave this out", "repair_crew")
        for number, fault in enumerate(self.faults):
            if fault.at >= self.lasts_s:
                raise Wrong(f"this is after the end, at {self.lasts_s:g} s", "faults", number, "at")
            if isinstance(fault, RobotFault) and fault.fleet not in self.fleets:
                raise Wrong(f"there is no fleet {fault.fleet!r}", "faults", number, "fleet")
        for metric, threshold in self.thresholds.items():
            _check_threshold(metric, threshold)
        return self

    @property
    def lasts_s(self) -> float:
        return self.duration if self.duration is not None else sum(stage.lasts for stage in self.stages)

    @property
    def virtual_only(self) -> list[str]:
        """What it asks for that no real fleet does: by the names of the fields."""
        asked = {"queue": self.queue != Queue(), "repair_crew": self.repair_crew is not None}
        for name, fleet in self.fleets.items():
            asked[f"fleets.{name}.breakdowns"] = fleet.breakdowns is not None
            asked[f"fleets.{name}.heartbeats.loss"] = fleet.heartbeats.loss > 0
        for name, each in (self.jobs.classes if self.jobs else {}).items():
            asked[f"jobs.classes.{name}.each_attempt"] = each.each_attempt != "same"
        return [name for name, there in asked.items() if there]

    @property
    def robots(self) -> int:
        return sum(fleet.count for fleet in self.fleets.values())

    @property
    def heartbeats_per_s(self) -> float:
        return sum(fleet.count / fleet.heartbeats.interval for fleet in self.fleets.values())

    @property
    def load(self) -> list[Segment]:
        """In multiples of the arrivals' rate, from the beginning to the end."""
        if self.duration is not None:
            return [Segment(0.0, self.duration, 1.0, 1.0)]
        found, before, begins_s = [], 0.0, 0.0
        for stage in self.stages:
            first = before if isinstance(stage, Ramp) else stage.load
            found.append(Segment(begins_s, begins_s + stage.lasts, first, stage.load))
            begins_s += stage.lasts
            before = before if isinstance(stage, Spike) else stage.load
        return found
