"""What came of a run: the checkers' word on the record, and every promise against what was measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
from checkers import history, lifecycle, outcomes
from checkers.history import Change, Evidence, FinalJob, Op
from checkers.job_model import Bounds
from checkers.violation import Violation

from chaos.options import BEAT_MS, Options
from chaos.promises import (
    Done,
    Promise,
    answers_promise,
    offline_promise,
    readiness_promise,
    recovery_promise,
    regrant_promises,
    regrants,
    robot_answers_promise,
    storm_promise,
    stream_promise,
)
from chaos.resources import FULL_S, MOST_MB_A_MINUTE, Slope, growing
from chaos.run import Gathered, Run
from fleet.job import Job, JobStatus
from fleet.limits import MS


class Outcome(msgspec.Struct, kw_only=True):
    options: Options
    promises: list[Promise]
    violations: list[Violation]
    done: list[Done]
    robot_faults: dict[str, int]
    ops: dict[tuple[str, str], int]
    jobs: dict[str, int]
    stale_refused: int
    slopes: dict[str, Slope]
    left_behind: list[str]

    @property
    def good(self) -> bool:
        return not self.violations and not self.left_behind and all(promise.kept for promise in self.promises)


def judge(this: Run, gathered: Gathered, record: Path, left_behind: list[str]) -> Outcome:
    ops = history.read([record])
    finals = _finals(this, gathered.jobs)
    evidence = Evidence(ops, finals, drained=True)
    bounds = Bounds(
        lease_ns=this.limits.lease_ms * MS, cancel_grace_ns=this.limits.cancel_grace_ms * MS, timeouts=True
    )
    return Outcome(
        options=this.options,
        promises=_promises(this, gathered, finals, ops),
        violations=outcomes.check(evidence) + lifecycle.check(evidence, bounds),
        done=this.done,
        robot_faults=this.robot_faults,
        ops=Counter((type(op.call).__name__.lower(), op.outcome) for op in ops),
        jobs=Counter(str(job.status) for job in gathered.jobs),
        stale_refused=this.crowd.stale_refused(),
        slopes=this.resources.slopes(),
        left_behind=left_behind,
    )


def _finals(this: Run, jobs: list[Job]) -> dict[str, FinalJob]:
    """With what live-jobs told of each, where it told everything."""
    stream = this.watchers["live-jobs"].stream
    if stream.gaps or stream.holes:
        return {job.job_id: history.final_of(job) for job in jobs}
    changes: dict[str, list[Change]] = {}
    for event in stream.events:
        changes.setdefault(event.data["job_id"], []).append(Change(JobStatus(event.data["status"])))
    # The first job was there before anybody watched.
    return {
        job.job_id: history.final_of(job, changes.get(job.job_id) if job.name != "probe" else None)
        for job in jobs
    }


def _promises(this: Run, gathered: Gathered, finals: dict[str, FinalJob], ops: list[Op]) -> list[Promise]:
    assert this.prober is not None
    limits, streams = this.limits, {name: watcher.stream for name, watcher in this.watchers.items()}
    lease_s, backoff_s = limits.lease_ms / 1_000, limits.backoff_base_ms / 1_000
    silence_s = (limits.offline_after_ms_at(BEAT_MS) + BEAT_MS) / 1_000 + 1.0
    robots, done, clock = this.crowd.robots, this.done, this.clock
    found, never = regrants(this.crowd.orphans, streams["live-jobs"], finals, done, clock, lease_s, backoff_s)
    told = {name: [each for each in gathered.missing if each.startswith(name)] for name in streams}
    return [
        Promise("every job ends", f"{len(finals)} jobs", [] if gathered.drained else ["some did not"]),
        *regrant_promises(found, never),
        recovery_promise(done),
        answers_promise(this.clerk.answers + this.admin.answers + this.nobody.answers),
        robot_answers_promise(robots.values()),
        readiness_promise(done, this.prober),
        offline_promise(robots, streams["robot-status"], done, clock, silence_s),
        storm_promise(robots, gathered.lost_leases, done, clock, lease_s, ops),
        *(stream_promise(stream, told[name]) for name, stream in streams.items()),
        *_growth(this),
    ]


def _growth(this: Run) -> list[Promise]:
    """Of a run that is long enough to tell."""
    slopes = this.resources.slopes()
    text = f"no process grows by {MOST_MB_A_MINUTE} MB, or by a file or thread in two minutes"
    return [Promise(text, f"{len(slopes)} kinds", growing(slopes))] if this.options.seconds >= FULL_S else []
