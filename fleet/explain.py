"""Why a job is still pending: what its store and the registry know of it, put into sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from fleet.job import Job, JobStatus
from fleet.robot import Pause, RobotStatus
from fleet.robot_entry import RobotEntry
from fleet.wall_time import WallTime

Presence = Literal["ready", "draining", "maintenance", "offline"]
State = Literal["asking", "not_asking", "busy", "draining", "maintenance", "offline"]
PRESENCES: tuple[Presence, ...] = ("ready", "draining", "maintenance", "offline")


class Able(msgspec.Struct, frozen=True):
    """A robot that has all that the job needs. `pause`: the maintenance or drain that keeps it from work."""

    robot_id: str
    presence: Presence
    slots: int
    pause: Pause | None


class Suited(msgspec.Struct, frozen=True):
    """What the registry knows. `missing`: capabilities that no robot of the environment has; `counts`: all
    who are able, `able`: some of them."""

    registered: int = 0
    in_environment: int = 0
    missing: list[str] = []
    able: list[Able] = []
    counts: dict[Presence, int] = {}


class Place(msgspec.Struct, frozen=True):
    """What the job store knows. `held` and `asking`: of the robots that it was asked about, how many jobs
    each holds and who of them waits for work."""

    job: Job
    due_in_ms: int = 0
    outranked_by: int = 0
    expires_in_ms: int | None = None
    held: dict[str, int] = {}
    asking: list[str] = []


class Reason(msgspec.Struct, frozen=True):
    code: str
    detail: str


class Candidate(msgspec.Struct, frozen=True):
    """A robot that could take the job, and why it has not."""

    robot_id: str
    state: State
    jobs: int
    slots: int
    note: str = ""
    until: WallTime | None = None


class Explanation(msgspec.Struct, frozen=True):
    """`reasons` is empty unless the job is pending; `robots` are at most 20 of those who could take it,
    `robot_counts` counts all of them."""

    job_id: str
    status: JobStatus
    summary: str
    reasons: list[Reason] = []
    outranked_by: int = 0
    robots: list[Candidate] = []
    robot_counts: dict[Presence, int] = {}


# -- what the registry knows


def suited(
    robots: Iterable[RobotEntry], environment: str | None, capabilities: Sequence[str], limit: int
) -> Suited:
    """Who could take a job with these needs; the first `limit` of them, those who are there first."""
    required = frozenset(capabilities)
    missing = set(required)
    found: dict[Presence, list[RobotEntry]] = {presence: [] for presence in PRESENCES}
    counts = dict.fromkeys(PRESENCES, 0)
    registered = in_environment = 0
    for robot in robots:
        registered += 1
        if environment not in (None, robot.spec.environment):
            continue
        in_environment += 1
        missing.difference_update(robot.spec.capabilities)
        if required.issubset(robot.spec.capabilities):
            presence = _presence(robot)
            counts[presence] += 1
            if counts[presence] <= limit:
                found[presence].append(robot)
    able = [_able(robot, presence) for presence in PRESENCES for robot in found[presence]]
    return Suited(registered, in_environment, sorted(missing), able[:limit], counts)


def _presence(robot: RobotEntry) -> Presence:
    if robot.status() is RobotStatus.OFFLINE:
        return "offline"
    if robot.maintenance is not None:
        return "maintenance"
    return "ready" if robot.drain is None else "draining"


def _able(robot: RobotEntry, presence: Presence) -> Able:
    pause = robot.maintenance or robot.drain
    return Able(robot.spec.robot_id, presence, robot.spec.max_concurrent_jobs, pause)


# -- both together


def explain(place: Place, suited: Suited) -> Explanation:
    job = place.job
    if job.status is not JobStatus.PENDING:
        return Explanation(job.job_id, job.status, _past(job))
    candidates = [_candidate(robot, place) for robot in suited.able]
    reasons = [*_timing(place), *_robots(job, suited, candidates), *_rank(place), *_more(place)]
    counts = {presence: count for presence, count in suited.counts.items() if count}
    return Explanation(
        job.job_id, job.status, reasons[0].detail, reasons, place.outranked_by, candidates, counts
    )


def _past(job: Job) -> str:
    match job.status:
        case JobStatus.CLAIMED:
            return f"{job.robot_id} was granted it at {job.claimed_at} and has not started it yet"
        case JobStatus.RUNNING:
            stopping = ", and is asked to stop" if job.cancel_requested else ""
            stuck = f", and has told of no progress since {job.last_progress_at}" if job.stuck else ""
            return f"{job.robot_id} works on it since {job.started_at}{stopping}{stuck}"
        case JobStatus.COMPLETED:
            return f"{job.robot_id} completed it at {job.finished_at}"
        case JobStatus.FAILED:
            again = f", and was submitted again as {job.retried_by}" if job.retried_by else ""
            return f"it failed at {job.finished_at}: {job.error}{again}"
    return f"it was cancelled at {job.finished_at}"


def _candidate(robot: Able, place: Place) -> Candidate:
    held = place.held.get(robot.robot_id, 0)
    pause = robot.pause or Pause(since="")
    return Candidate(robot.robot_id, _state(robot, held, place), held, robot.slots, pause.note, pause.until)


def _state(robot: Able, held: int, place: Place) -> State:
    if robot.presence != "ready":
        return robot.presence
    if held >= robot.slots:
        return "busy"
    return "asking" if robot.robot_id in place.asking else "not_asking"


def _timing(place: Place) -> list[Reason]:
    job = place.job
    if not place.due_in_ms:
        return []
    why = f"attempt {job.attempt} of {job.max_attempts} failed; the next" if job.attempt else "it"
    return [Reason("not_due", f"{why} is not to begin before {job.not_before}")]


def _robots(job: Job, suited: Suited, candidates: list[Candidate]) -> list[Reason]:
    if not suited.registered:
        return [Reason("no_robot", "no robot is registered")]
    if not suited.in_environment:
        return [Reason("no_robot_of_environment", f"no robot is of the environment {job.environment}")]
    of = f" of the environment {job.environment}" if job.environment else ""
    if suited.missing:
        return [Reason("capability_nobody_has", f"no robot{of} has {', '.join(suited.missing)}")]
    if not candidates:
        needed = ", ".join(sorted(set(job.required_capabilities)))
        return [Reason("no_robot_has_all", f"no robot{of} has all of {needed}")]
    return _busy(suited, candidates)


def _busy(suited: Suited, candidates: list[Candidate]) -> list[Reason]:
    could = f"{sum(suited.counts.values())} robots could take it"
    ready = [candidate for candidate in candidates if candidate.state in ("asking", "not_asking", "busy")]
    if not ready:
        away = ", ".join(f"{suited.counts[p]} {p}" for p in PRESENCES if suited.counts.get(p))
        return [Reason("nobody_ready", f"{could}: {away}")]
    if any(candidate.state == "asking" for candidate in ready):
        return []
    idle = [candidate.robot_id for candidate in ready if candidate.state == "not_asking"]
    if idle:
        return [Reason("not_asking", f"{could}; {idle[0]} has a free slot and does not ask for work")]
    return [Reason("busy", f"{could}, and those who are there hold as many jobs as they may")]


def _rank(place: Place) -> list[Reason]:
    if not place.outranked_by:
        return []
    return [Reason("outranked", f"{place.outranked_by} jobs that the same robots may take go first")]


def _more(place: Place) -> list[Reason]:
    """What is no reason by itself, and the reason if there is no other."""
    job = place.job
    reasons = []
    if not place.due_in_ms and not place.outranked_by and place.asking:
        reasons.append(Reason("about_to_be_granted", "a robot that could take it asks for work"))
    if job.attempt and job.error:
        reasons.append(Reason("last_error", f"attempt {job.attempt} of {job.max_attempts}: {job.error}"))
    if place.expires_in_ms is not None:
        left_s = place.expires_in_ms / 1_000
        reasons.append(Reason("expires", f"it fails in {left_s:.1f} s if nobody takes it"))
    return reasons
