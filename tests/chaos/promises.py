"""What was promised, held against what was measured."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
from checkers.history import Beat, FinalJob, Op

from chaos.plan import Actor, ActorFault
from chaos.probes import Prober
from chaos.producers import Answer
from chaos.robots import Orphan, Robot
from chaos.watchers import Heard, Stream
from fleet.job import TERMINAL

BACK_S = 10.0  # an actor answers again so soon after it was killed
REGRANT_SLACK_S = 2.0
ANSWER_S = 14.0  # the fleet is given 10 s to come back, who waits behind another 1 s, the machine the rest
ROBOT_ANSWER_S = 26.0  # a claim needs one room after the other, and waits 3 s for work
READINESS_S = 6.0  # a pulse a second, 3 s for its answer, and the machine's
SECOND = 1_000_000_000


class Done(msgspec.Struct):
    """A fault of an actor as it came to be. `over_ns`: when a stopped one went on."""

    fault: ActorFault
    pid: int
    at_ns: int
    over_ns: int | None = None
    back_ns: int | None = None  # when it was seen to work again

    @property
    def recovery_s(self) -> float | None:
        began_ns = self.over_ns or self.at_ns
        return None if self.back_ns is None else (self.back_ns - began_ns) / SECOND


class Outage(msgspec.Struct, frozen=True):
    from_ns: int
    to_ns: int

    def holds(self, at_ns: int) -> bool:
        return self.from_ns <= at_ns <= self.to_ns


class Promise(msgspec.Struct):
    """`broken` names the first cases that break it."""

    text: str
    measured: str
    broken: list[str]

    @property
    def kept(self) -> bool:
        return not self.broken


class Clock:
    """Between the wall clock of the server's stamps and the monotonic clock of the record."""

    def __init__(self) -> None:
        self._ahead_ns = time.time_ns() - time.monotonic_ns()

    def monotonic_ns(self, wall_ns: int) -> int:
        return wall_ns - self._ahead_ns

    def wall_ns(self, monotonic_ns: int) -> int:
        return monotonic_ns + self._ahead_ns


# -- outages


def outages(done: Sequence[Done], rooms: Iterable[Actor]) -> list[Outage]:
    """Of these rooms. One that was never seen to come back is out for ever."""
    wanted = set(rooms)
    return [Outage(each.at_ns, each.back_ns or 2**62) for each in done if each.fault.actor in wanted]


def extended(from_ns: int, span_ns: int, out: Sequence[Outage]) -> int:
    """`from_ns` + `span_ns`, which begins anew at the end of each outage that it meets."""
    until_ns = from_ns + span_ns
    for outage in sorted(out, key=lambda each: each.from_ns):
        if outage.from_ns <= until_ns and outage.to_ns > from_ns:
            until_ns = max(until_ns, outage.to_ns + span_ns)
    return until_ns


def before(at_ns: int, span_ns: int, out: Sequence[Outage]) -> int:
    """Where a span begins that ends at `at_ns`, not counting the time of outages."""
    from_ns = at_ns - span_ns
    for outage in sorted(out, key=lambda each: -each.to_ns):
        if outage.from_ns < at_ns and outage.to_ns > from_ns:
            from_ns -= min(outage.to_ns, at_ns) - outage.from_ns
    return from_ns


# -- jobs of robots that are gone


class Regrant(msgspec.Struct, frozen=True):
    orphan: Orphan
    took_s: float
    bound_s: float
    in_outage: bool


def regrants(
    orphans: Sequence[Orphan],
    live_jobs: Stream,
    finals: dict[str, FinalJob],
    done: Sequence[Done],
    clock: Clock,
    lease_s: float,
    backoff_base_s: float,
) -> tuple[list[Regrant], list[str]]:
    """Those that were granted again, and what should have been and was not. A robot that came back first may
    have gone on with its job; a job that was to be stopped, or had no attempt left, ends instead."""
    told: dict[str, list[Heard]] = defaultdict(list)
    for event in live_jobs.events:
        told[event.data["job_id"]].append(event)
    out = outages(done, ("job-store", "registry"))
    found, missing = [], []
    for orphan in orphans:
        backoff_s = 0.0 if orphan.attempt == 1 else backoff_base_s * 2 ** (orphan.attempt - 1)
        span_ns = int((lease_s + REGRANT_SLACK_S + backoff_s) * SECOND)
        bound_ns = extended(orphan.at_ns, span_ns, out)
        later = [each for each in told[orphan.job_id] if each.at_wall_ns > orphan.at_wall_ns]
        claimed = [each for each in later if each.data["status"] == "claimed"]
        again_ns = min((clock.monotonic_ns(each.at_wall_ns) for each in claimed), default=None)
        if orphan.back_ns is not None and orphan.back_ns < min(again_ns or bound_ns, bound_ns):
            continue
        if again_ns is not None:
            took_s, bound_s = (again_ns - orphan.at_ns) / SECOND, (bound_ns - orphan.at_ns) / SECOND
            found.append(Regrant(orphan, took_s, bound_s, bound_ns > orphan.at_ns + span_ns))
        elif orphan.job_id not in finals or finals[orphan.job_id].status not in TERMINAL:
            missing.append(f"{orphan.job_id} of {orphan.robot_id} was never granted again")
    return found, missing


def regrant_promises(found: list[Regrant], missing: list[str]) -> list[Promise]:
    promises = []
    for in_outage, text in (
        (False, "a dead robot's job is granted again within lease + 2 s"),
        (True, "with a room down in between, within its return + lease + 2 s"),
    ):
        those = [each for each in found if each.in_outage is in_outage]
        late = [
            f"{each.orphan.job_id} after {each.took_s:.1f} s, bound {each.bound_s:.1f} s"
            for each in those
            if each.took_s > each.bound_s
        ]
        times = sorted(each.took_s for each in those)
        measured = f"{len(times)} jobs"
        if times:
            measured += f", p50 {times[len(times) // 2]:.1f} s, max {times[-1]:.1f} s"
        promises.append(Promise(text, measured, late + (missing if not in_outage else [])))
    return promises


# -- rooms that come back


def recovery_promise(done: Sequence[Done]) -> Promise:
    kills = [each for each in done if each.fault.act == "kill"]
    late = []
    for each in kills:
        took_s = each.recovery_s
        if took_s is None or took_s > BACK_S:
            late.append(f"{each.fault.actor} {each.pid}: {'never' if took_s is None else f'{took_s:.1f} s'}")
    worst = max((each.recovery_s or 0.0 for each in kills), default=0.0)
    return Promise(
        "an actor works again within 10 s of its death", f"{len(kills)} deaths, max {worst:.1f} s", late
    )


def answers_promise(answers: Sequence[Answer]) -> Promise:
    """Every request is answered in time; who is refused for now is told when to ask again."""
    wrong = []
    for answer in answers:
        came = f"{answer.asked}: {answer.status or answer.error} after {answer.took_s:.1f} s"
        if answer.took_s > ANSWER_S:
            wrong.append(came)
        elif answer.status == 503 and not answer.retry_after:
            wrong.append(f"{came}, without Retry-After")
        elif answer.status == 0 or (answer.status >= 500 and answer.status != 503):
            wrong.append(came)
    refused = sum(answer.status == 503 for answer in answers)
    slowest = max((answer.took_s for answer in answers), default=0.0)
    measured = f"{len(answers)} requests, {refused} of them 503, slowest {slowest:.1f} s"
    return Promise(f"requests end within {ANSWER_S:g} s, if need be in 503 with Retry-After", measured, wrong)


def robot_answers_promise(robots: Iterable[Robot]) -> Promise:
    slowest = max(robots, key=lambda robot: robot.log.slowest_s)
    took_s = slowest.log.slowest_s
    late = [f"{slowest.robot_id}: {took_s:.1f} s"] if took_s > ROBOT_ANSWER_S else []
    return Promise(f"robots are answered within {ROBOT_ANSWER_S:g} s", f"slowest {took_s:.1f} s", late)


def readiness_promise(done: Sequence[Done], prober: Prober) -> Promise:
    """Red while a room is away for long, green in the end."""
    wrong, told = [], 0
    for out in outages(done, ("job-store", "registry")):
        if out.to_ns - out.from_ns > READINESS_S * SECOND:
            red = [
                r
                for r in prober.readiness
                if not r.ready and out.from_ns <= r.at_ns <= out.to_ns + 3 * SECOND
            ]
            told += bool(red)
            if not red:
                wrong.append(
                    f"a room was away for {(out.to_ns - out.from_ns) / SECOND:.1f} s and nobody told"
                )
    if not prober.readiness or not prober.readiness[-1].ready:
        wrong.append("not ready in the end")
    return Promise("readiness tells of long outages, and of their end", f"{told} told", wrong)


# -- robots that are alive


def offline_promise(
    robots: dict[str, Robot], status: Stream, done: Sequence[Done], clock: Clock, silence_s: float
) -> Promise:
    """`silence_s`: who was there for as long before, while the registry was there to hear it, was heard."""
    out = outages(done, ("registry",))
    told, false = 0, []
    for event in status.events:
        if event.data["status"] != "offline" or event.snapshot:
            continue
        told += 1
        at_ns = clock.monotonic_ns(event.at_wall_ns)
        since_ns = before(at_ns, int(silence_s * SECOND), out)
        robot = robots[event.data["robot_id"]]
        if any(p.from_ns < since_ns and (p.to_ns is None or p.to_ns > at_ns) for p in robot.steady):
            false.append(f"{robot.robot_id} at {event.data['timestamp']}")
    measured = f"{told} declared offline, {len(false)} falsely"
    return Promise("no robot that beats is declared offline", measured, false)


class LostLease(msgspec.Struct, frozen=True):
    job_id: str
    robot_id: str
    at_wall_ns: int


STORM_S = 1.0
NAMED_S = 1.5  # before a stop: one heartbeat and a half


def storms(done: Sequence[Done]) -> list[Outage]:
    """The moments in which a job store that was stopped might take its own absence for that of robots."""
    stops = [each for each in done if each.fault.actor == "job-store" and each.over_ns is not None]
    return [Outage(each.over_ns or 0, (each.over_ns or 0) + int(STORM_S * SECOND)) for each in stops]


def storm_promise(
    robots: dict[str, Robot],
    lost: Sequence[LostLease],
    done: Sequence[Done],
    clock: Clock,
    lease_s: float,
    ops: Sequence[Op],
) -> Promise:
    """A job that its robot named shortly before the stop keeps its lease over it. (One that was granted, and
    of which its robot never heard, may have had less than a second left.)"""
    stops = {each.over_ns: each for each in done if each.fault.actor == "job-store"}
    wrong = []
    for each in lost:
        at_ns = clock.monotonic_ns(each.at_wall_ns)
        for moment in storms(done):
            from_ns = stops[moment.from_ns].at_ns - int(lease_s * SECOND)
            there = any(
                p.from_ns < from_ns and (p.to_ns is None or p.to_ns > at_ns)
                for p in robots[each.robot_id].steady
            )
            if moment.holds(at_ns) and there and _named(ops, each, stops[moment.from_ns].at_ns):
                wrong.append(f"{each.job_id} of {each.robot_id}")
    return Promise("a job store that was stopped ends no lease for it", f"{len(storms(done))} stops", wrong)


def _named(ops: Sequence[Op], lost: LostLease, stop_ns: int) -> bool:
    from_ns = stop_ns - int(NAMED_S * SECOND)
    return any(
        isinstance(op.call, Beat)
        and op.call.robot_id == lost.robot_id
        and from_ns <= op.invoked_ns <= stop_ns
        and any(job.job_id == lost.job_id for job in op.call.jobs)
        for op in ops
    )


# -- watchers


def stream_promise(stream: Stream, missing: list[str]) -> Promise:
    measured = (
        f"{len(stream.events)} events over {stream.sockets} sockets, {stream.resumed} resumed, "
        f"{len(stream.gaps)} gaps announced {', '.join(sorted(set(stream.gaps)))}"
    )
    return Promise(
        f"{stream.name}: numbers without a hole, the last state told", measured, stream.holes + missing
    )


def last_states_missing(stream: Stream, name: str, states: dict[str, str]) -> list[str]:
    """Where the last that was told of a robot or job is not what is."""
    last = {event.data[name]: event.data["status"] for event in stream.events}
    return [
        f"{stream.name}: {each} is {state}, and the last that was told is {last.get(each)}"
        for each, state in states.items()
        if last.get(each) != state
    ]
