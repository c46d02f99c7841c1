"""The job store against a naive model: plain dicts, linear scans, no heap and no lazy removal."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from conftest import search_further
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.errors import Busy, Conflict, FleetError, Forbidden
from fleet.job import JobEvent, JobStatus
from fleet.job_record import JobRecord, JobsAtRest
from fleet.job_store import JobStore
from fleet.limits import MS, SECOND, Limits
from fleet.messages import Answer, Beats, Claim, JobSpec, JobToken, Parked, Report, Submit, Withdraw
from fleet.wall_time import rfc3339, wall_ns_of

LIMITS = Limits(
    heartbeat_interval_ms=300,
    min_lease_ms=1_000,
    cancel_grace_ms=500,
    backoff_base_ms=200,
    backoff_max_ms=700,
    aging_ms_per_level=100,
    door_timeout_ms=3_000,
    long_poll_ms=1_000,
    wait_window_s=3,
    max_pending=8,
    max_progress_events=2,
)
EPOCH_NS = 1_736_937_000_000_000_000
# Each robot has skills of its own, so that each stands in a line of its own.
ROBOTS = {"r0": ("a", [], 1), "r1": ("a", ["arm"], 2), "r2": ("b", ["arm", "lift"], 2)}
HELD = ("claimed", "running")
EDGES = {
    "submit": {(None, "pending")},
    "claim": {("pending", "claimed")},
    "start": {("claimed", "running")},
    "release": {(held, to) for held in HELD for to in ("pending", "cancelled", "failed")},
    "lease_expired": {(held, to) for held in HELD for to in ("pending", "cancelled", "failed")},
    "fail": {(held, to) for held in HELD for to in ("pending", "cancelled", "failed")},
    "complete": {("running", "completed")},
    "cancel": {("pending", "cancelled")},
    "cancelled": {(held, to) for held in HELD for to in ("cancelled", "failed")},
    "cancel_expired": {(held, to) for held in HELD for to in ("cancelled", "failed")},
    "pending_timeout": {("pending", "failed")},
}


class LongestBackoff(Random):
    """Back-off without jitter: always its ceiling."""

    def randrange(self, *args: Any, **named: Any) -> int:
        return int(args[0]) - 1


@dataclass
class ModelJob:
    job_id: str
    seq: int
    spec: JobSpec
    due_ns: int  # wall
    status: str = "pending"
    visible: bool = False
    attempt: int = 0
    token: int = 0
    robot: str | None = None
    door: str = ""
    stopping: bool = False
    timed_out: bool = False
    error: str | None = None
    last: tuple[str, int, str] | None = None
    started: bool = False  # by the robot that had it last
    claim: tuple[int, str] = (0, "")  # the number and the request id of its newest grant
    deadlines: dict[str, int] = field(default_factory=dict)
    stored_expiry: int | None = None  # as the last fact told it

    @property
    def held(self) -> bool:
        return self.status in HELD

    def rank(self) -> tuple[int, int]:
        return (self.due_ns + self.spec.priority * LIMITS.aging_ms_per_level * MS, self.seq)

    def outcome(self, event: str, retryable: bool = True) -> str | None:
        """Where `event` leads, None if nowhere."""
        if event == "start":
            return "running" if self.status == "claimed" else None
        if event == "complete":
            return "completed" if self.status == "running" else None
        if not self.held:
            return None
        if event == "progress":
            return self.status
        left = self.attempt < self.spec.max_attempts
        if self.timed_out:
            return "failed"
        if event in ("cancelled", "cancel_expired"):
            return "cancelled" if self.stopping else None
        if self.stopping and (retryable or event != "fail"):
            return "cancelled"
        return "pending" if event == "release" or (left and retryable) else "failed"


@dataclass
class ModelClaim:
    claim: Claim
    since_ns: int
    until_ns: int


@dataclass
class ModelDoor:
    seen_ns: int
    items: list[tuple[Any, ...]] = field(default_factory=list)
    epoch: int = 0
    cursor: int = 0
    shown: int = 0  # how many of `items` the last poll showed


class JobStoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = JobStore(LIMITS, LongestBackoff())
        self.jobs: dict[str, ModelJob] = {}
        self.waiting: dict[str, ModelClaim] = {}
        self.answered: dict[str, tuple[str, list[tuple[str, int]]]] = {}
        self.doors: dict[str, ModelDoor] = {}
        self.places: dict[str, tuple[int, int]] = {}  # the last epoch and cursor that each door was told
        self.epochs: set[int] = set()
        self.submits: list[Submit] = []
        self.facts: list[tuple[str, str, str]] = []
        self.heard_status: dict[str, str | None] = {}
        self.waits: list[tuple[int, int]] = []
        self.requests = 0
        self.now_ns = 0
        self.records: dict[int, JobRecord] = {}  # the newest of each job, as a journal has them
        self.place = (0, 0)  # the number of the next event, the part of the last
        self.lives = 0
        self.granted = 0

    @property
    def wall_ns(self) -> int:
        return EPOCH_NS + self.now_ns

    @property
    def clock(self) -> tuple[int, int]:
        return self.now_ns, self.wall_ns

    def step(self) -> None:
        self.now_ns += 1  # so that no two claims wait equally long

    def pick(self, number: int) -> ModelJob:
        return list(self.jobs.values())[number % len(self.jobs)]

    # -- the model's rules

    def holds(self, robot: str) -> int:
        return sum(job.held and job.robot == robot for job in self.jobs.values())

    def enqueue(self, job: ModelJob) -> None:
        job.visible = job.due_ns <= self.wall_ns
        if job.visible and job.spec.pending_timeout_s:
            job.deadlines["pending_timeout"] = self.now_ns + int(job.spec.pending_timeout_s * SECOND)
        job.stored_expiry = job.deadlines.get("pending_timeout")

    def become_due(self) -> None:
        for job in self.jobs.values():
            if job.status == "pending" and not job.visible and job.due_ns <= self.wall_ns:
                self.enqueue(job)

    def move(self, job: ModelJob, event: str, to: str, error: str | None = None) -> None:
        job.status = to
        job.visible = False
        job.started = event == "start" or (job.started and event != "claim")
        job.deadlines.pop("pending_timeout", None)
        self.facts.append((job.job_id, event, to))
        if to in HELD:
            job.deadlines["lease_expired"] = self.now_ns + LIMITS.lease_ms * MS
            if event == "start" and job.spec.timeout_s:
                job.deadlines["timeout"] = self.now_ns + int(job.spec.timeout_s * SECOND)
            return
        job.deadlines.clear()
        if to == "pending":
            self.go_back(job, event, error)
        elif to == "completed":
            job.error = None
        elif to == "failed":
            reasons = {"pending_timeout": "expired", "lease_expired": "lease expired"}
            job.error = "timeout" if job.timed_out else reasons.get(event, error or "failed")

    def go_back(self, job: ModelJob, event: str, error: str | None) -> None:
        job.robot = None
        wait_ms = min(LIMITS.backoff_max_ms, LIMITS.backoff_base_ms * 2 ** (job.attempt - 1))
        if event == "release":
            job.attempt -= 1
            wait_ms = 0
        if event == "lease_expired" and job.attempt == 1:
            wait_ms = 0
        if event == "fail":
            job.error = error
        job.due_ns = self.wall_ns + wait_ms * MS
        self.enqueue(job)

    def ask_to_stop(self, job: ModelJob) -> None:
        job.deadlines.setdefault("cancel_expired", self.now_ns + LIMITS.cancel_grace_ms * MS)
        self.post(job.door, ("cancel", job.robot, job.job_id))

    def post(self, door: str, item: tuple[Any, ...]) -> None:
        if door in self.doors:
            self.doors[door].items.append(item)

    def best_pair(self) -> tuple[ModelJob, ModelClaim] | None:
        for job in sorted((job for job in self.jobs.values() if job.visible), key=ModelJob.rank):
            able = [
                parked
                for parked in self.waiting.values()
                if job.spec.environment in (None, parked.claim.environment)
                and set(job.spec.required_capabilities) <= set(parked.claim.capabilities)
            ]
            if able:
                return job, min(able, key=lambda parked: parked.since_ns)
        return None

    def match(self, asking: Claim | None = None) -> None:
        grants: dict[str, tuple[Claim, list[tuple[str, int]]]] = {}
        while pair := self.best_pair():
            job, claim = pair[0], pair[1].claim
            self.waits.append((self.now_ns // SECOND, max(0, self.wall_ns - job.due_ns)))
            job.token, job.attempt = job.token + 1, job.attempt + 1
            job.robot, job.door = claim.robot_id, claim.door
            self.granted += 1
            job.claim = (self.granted, claim.request_id)
            self.move(job, "claim", "claimed")
            given = grants.setdefault(claim.robot_id, (claim, []))[1]
            given.append((job.job_id, job.token))
            if len(given) >= claim.limit or self.holds(claim.robot_id) >= claim.max_concurrent_jobs:
                del self.waiting[claim.robot_id]
        for robot, (claim, given) in grants.items():
            self.waiting.pop(robot, None)
            self.answered[robot] = (claim.request_id, given)
            if claim is not asking:
                self.post(claim.door, ("answer", robot, claim.request_id, tuple(given)))

    def first_answer(self, claim: Claim) -> list[tuple[str, int]] | None:
        request_id, given = self.answered.get(claim.robot_id, ("", []))
        if request_id != claim.request_id:
            return None
        return [
            (name, token) for name, token in given if self.jobs[name].held and self.jobs[name].token == token
        ]

    # -- commands

    @rule(
        count=st.integers(1, 3),
        priority=st.sampled_from([0, 3, 20]),
        needs=st.sampled_from([(None, []), ("a", []), ("b", []), (None, ["arm"]), (None, ["lift"])]),
        max_attempts=st.integers(1, 3),
        timeout_s=st.sampled_from([None, 0.4, 1.5]),
        pending_timeout_s=st.sampled_from([None, None, 0.7]),
        later_ms=st.sampled_from([None, None, -50, 300]),
    )
    def submit(
        self,
        count: int,
        priority: int,
        needs: tuple[str | None, list[str]],
        max_attempts: int,
        timeout_s: float | None,
        pending_timeout_s: float | None,
        later_ms: int | None,
    ) -> None:
        self.step()
        not_before = None if later_ms is None else rfc3339(self.wall_ns + later_ms * MS)
        spec = JobSpec(
            name="n",
            priority=priority,
            environment=needs[0],
            required_capabilities=needs[1],
            max_attempts=max_attempts,
            timeout_s=timeout_s,
            pending_timeout_s=pending_timeout_s,
            not_before=not_before,
        )
        first = len(self.jobs)
        command = Submit([f"j{first + n}" for n in range(count)], [spec] * count)
        pending = sum(job.status == "pending" for job in self.jobs.values())
        if pending + count > LIMITS.max_pending:
            with pytest.raises(Busy):
                self.store.submit(command, *self.clock)
            return
        due_ns = max(self.wall_ns, wall_ns_of(not_before) if not_before else 0)
        for n, job_id in enumerate(command.job_ids):
            job = self.jobs[job_id] = ModelJob(job_id, first + n, spec, due_ns)
            self.facts.append((job_id, "submit", "pending"))
            self.enqueue(job)
        self.match()
        self.submits.append(command)
        jobs = self.store.submit(command, *self.clock)
        assert [job.job_id for job in jobs] == command.job_ids

    @precondition(lambda self: self.submits)
    @rule(number=st.integers(0, 50))
    def submit_again(self, number: int) -> None:
        command = self.submits[number % len(self.submits)]
        jobs = self.store.submit(command, *self.clock)
        assert [job.job_id for job in jobs] == command.job_ids

    @rule(
        robot=st.sampled_from(sorted(ROBOTS)),
        door=st.sampled_from(["d0", "d1"]),
        limit=st.integers(1, 3),
        wait_ms=st.sampled_from([0, 200, 2_000]),
        again=st.booleans(),
    )
    def claim(self, robot: str, door: str, limit: int, wait_ms: int, again: bool) -> None:
        self.step()
        parked = self.waiting.get(robot)
        request_id = parked.claim.request_id if parked else self.answered.get(robot, ("q", []))[0]
        if not again:
            self.requests += 1
            request_id = f"q{self.requests}"
        environment, skills, most = ROBOTS[robot]
        claim = Claim(door, robot, request_id, limit, wait_ms, skills, environment, most)
        self.doors.setdefault(door, ModelDoor(self.now_ns)).seen_ns = self.now_ns
        repeated = self.first_answer(claim)
        if repeated is None and self.holds(robot) >= most:
            with pytest.raises(Conflict) as refused:
                self.store.claim(claim, *self.clock)
            assert refused.value.code == "no_free_slot"
            return
        if repeated is None:
            self.park(claim, self.waiting.pop(robot, None))
            repeated = self.first_answer(claim)
        for job_id, _ in repeated or ():
            self.jobs[job_id].door = door  # the robot is there now
        said = self.store.claim(claim, *self.clock)
        if repeated is None and wait_ms:
            assert said == Parked(request_id)
            return
        if repeated is None:
            self.waiting.pop(robot, None)
        assert isinstance(said, Answer)
        assert said.request_id == request_id
        assert [(grant.job.job_id, grant.token) for grant in said.grants] == (repeated or [])

    def park(self, claim: Claim, before: ModelClaim | None) -> None:
        if before and before.claim.request_id != claim.request_id:
            self.post(before.claim.door, ("answer", claim.robot_id, before.claim.request_id, ()))
        since_ns = before.since_ns if before else self.now_ns
        self.waiting[claim.robot_id] = ModelClaim(claim, since_ns, self.now_ns + claim.wait_ms * MS)
        self.match(asking=claim)

    @rule(robot=st.sampled_from(sorted(ROBOTS)), door=st.sampled_from(["d0", "d1"]))
    def withdraw(self, robot: str, door: str) -> None:
        if robot in self.waiting and self.waiting[robot].claim.door == door:
            del self.waiting[robot]
        self.store.withdraw(Withdraw(door, robot, 0))

    @precondition(lambda self: self.jobs)
    @rule(
        number=st.integers(0, 50),
        event=st.sampled_from(["start", "start", "complete", "fail", "release", "cancelled", "progress"]),
        retryable=st.sampled_from([True, True, False]),
        robot=st.sampled_from(["holder"] * 6 + ["r0", "r1"]),
        behind=st.sampled_from([0] * 6 + [1, -1]),
    )
    def report(self, number: int, event: str, retryable: bool, robot: str, behind: int) -> None:
        held = [job for job in self.jobs.values() if job.held]
        job = held[number % len(held)] if held and number % 4 else self.pick(number)
        self.say(
            job, event, retryable, (job.robot or "r2") if robot == "holder" else robot, job.token - behind
        )

    @precondition(lambda self: any(job.last for job in self.jobs.values()))
    @rule(number=st.integers(0, 50))
    def report_again(self, number: int) -> None:
        told = [job for job in self.jobs.values() if job.last]
        job = told[number % len(told)]
        assert job.last
        robot, token, event = job.last
        self.say(job, event, True, robot, token)

    def say(self, job: ModelJob, event: str, retryable: bool, robot: str, token: int) -> None:
        self.step()
        report = Report(JobEvent(event), job.job_id, robot, token, 7, "broke", retryable, 50.0)
        before = self.store.get(job.job_id)
        started = event == "start" and job.started and (robot, token) == (job.robot, job.token)
        if started or job.last == (robot, token, event):
            assert self.store.report(report, *self.clock) is before
            return
        refusal = self.refusal(job, event, retryable, robot, token)
        if refusal:
            with pytest.raises(FleetError) as refused:
                self.store.report(report, *self.clock)
            assert (type(refused.value), refused.value.code) == refusal
            assert self.store.get(job.job_id) is before
            return
        if event != "progress":
            to = job.outcome(event, retryable)
            assert to
            self.move(job, event, to, "broke")
            job.last = (robot, token, event)
            self.match()
        self.store.report(report, *self.clock)

    @staticmethod
    def refusal(
        job: ModelJob, event: str, retryable: bool, robot: str, token: int
    ) -> tuple[type[FleetError], str] | None:
        if token != job.token or robot != job.robot:
            if token == job.token and job.held:
                return Forbidden, "not_yours"
            return Conflict, "stale_token"
        if job.outcome(event, retryable) is None:
            return Conflict, "wrong_state" if job.held or job.status == "pending" else "terminal"
        return None

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 50))
    def cancel(self, number: int) -> None:
        self.step()
        job = self.pick(number)
        said = self.store.cancel(job.job_id, *self.clock)
        assert said.previous_status == job.status
        assert said.cancelled == (job.status == "pending" or job.held)
        if job.status == "pending":
            self.move(job, "cancel", "cancelled")
        elif job.held and not job.stopping:
            job.stopping = True
            self.ask_to_stop(job)

    @precondition(lambda self: self.jobs)
    @rule(
        robot=st.sampled_from(sorted(ROBOTS)),
        numbers=st.lists(st.integers(0, 50), max_size=3),
        stale=st.booleans(),
    )
    def beat(self, robot: str, numbers: list[int], stale: bool) -> None:
        self.step()
        named = [self.pick(number) for number in numbers]
        named += [job for job in self.jobs.values() if job.held and job.robot == robot]
        stop = []
        for job in named:
            mine = job.held and job.robot == robot
            if mine and stale:
                continue  # from before its newest grant
            if mine:
                job.deadlines["lease_expired"] = self.now_ns + LIMITS.lease_ms * MS
            if not mine or job.stopping or job.timed_out:
                stop.append(job.job_id)
        tokens = [JobToken(job.job_id, job.token - stale) for job in named]
        assert self.store.beats(Beats(robot, tokens), self.now_ns) == stop

    @rule(step_ms=st.sampled_from([1, 50, 250, 450, 600, 1_100, 3_500]))
    def time_passes(self, step_ms: int) -> None:
        self.now_ns += step_ms * MS
        self.become_due()
        for job in self.jobs.values():
            self.act_on_deadlines(job)
        for name, door in list(self.doors.items()):
            if self.now_ns - door.seen_ns > LIMITS.door_timeout_ms * MS:
                del self.doors[name]
        for robot, parked in list(self.waiting.items()):
            if parked.claim.door not in self.doors or parked.until_ns <= self.now_ns:
                del self.waiting[robot]
                self.post(parked.claim.door, ("answer", robot, parked.claim.request_id, ()))
        self.match()
        self.store.tick(*self.clock)

    def act_on_deadlines(self, job: ModelJob) -> None:
        while job.deadlines:
            at_ns, event = min((at_ns, event) for event, at_ns in job.deadlines.items())
            if at_ns > self.now_ns:
                return
            if event == "timeout":
                del job.deadlines[event]
                job.timed_out = True
                self.ask_to_stop(job)
            elif event == "pending_timeout":
                self.move(job, event, "failed")
            else:
                to = job.outcome(event)
                assert to
                self.move(job, event, to)

    @rule(name=st.sampled_from(["d0", "d1"]), confirm=st.booleans())
    def poll(self, name: str, confirm: bool) -> None:
        """A door that does not confirm what it saw sees it again. One that the store gave up is told so
        by a new epoch, in which its old place confirms nothing."""
        door = self.doors.setdefault(name, ModelDoor(self.now_ns))
        door.seen_ns = self.now_ns
        if confirm:
            door.items = door.items[door.shown :]
            door.cursor += door.shown
        epoch, cursor = (door.epoch, door.cursor) if door.epoch else self.places.get(name, (0, 0))
        page = self.store.outbox(name, epoch, cursor, self.now_ns)
        assert page.epoch == door.epoch or not door.epoch
        assert door.epoch or page.epoch not in self.epochs
        self.epochs.add(page.epoch)
        door.epoch = page.epoch
        self.places[name] = (page.epoch, page.cursor)
        door.shown = len(door.items)
        assert page.cursor == door.cursor + door.shown
        answers = [
            (a.robot_id, a.request_id, tuple((grant.job.job_id, grant.token) for grant in a.grants))
            for a in page.answers
        ]
        assert sorted(answers) == sorted(item[1:] for item in door.items if item[0] == "answer")
        assert sorted(page.cancels) == sorted(item[1:] for item in door.items if item[0] == "cancel")

    @rule()
    def restart(self) -> None:
        """From what was told: every lease anew, no claim waits, what was granted is granted still."""
        said = [job.status for job in self.jobs.values()]
        live = [record for record in self.records.values() if record.job.finished_at is None]
        number, part = self.place
        names = list(self.jobs)
        today = said.count("completed"), said.count("failed")
        rest = JobsAtRest(live, number, part, len(names) + 1, [], names, *today)
        self.lives += 1
        self.store = JobStore(LIMITS, LongestBackoff(self.lives))
        self.store.restore(rest, *self.clock)
        for record in self.records.values():
            self.store.remember(record)  # those that are finished, as when somebody names them
        self.waiting.clear()
        self.doors.clear()
        self.waits.clear()
        self.answered.clear()
        for job in self.jobs.values():
            self.restart_job(job)
        for robot in ROBOTS:
            held = sorted(
                (job for job in self.jobs.values() if job.held and job.robot == robot),
                key=lambda job: job.claim,
            )
            if held:
                newest = held[-1].claim[1]
                mine = [job for job in held if job.claim[1] == newest]
                self.answered[robot] = (newest, [(job.job_id, job.token) for job in mine])

    def restart_job(self, job: ModelJob) -> None:
        job.door = ""
        if job.held:
            job.deadlines["lease_expired"] = self.now_ns + LIMITS.lease_ms * MS
        elif job.visible and job.spec.pending_timeout_s:
            anew = self.now_ns + int(job.spec.pending_timeout_s * SECOND)
            job.deadlines["pending_timeout"] = job.stored_expiry or anew
        elif job.status == "pending":
            self.enqueue(job)
            job.stored_expiry = None

    # -- what always holds

    @invariant()
    def every_job_is_as_the_model_says(self) -> None:
        for job_id, model in self.jobs.items():
            job = self.store.get(job_id)
            said = (job.status, job.attempt, job.robot_id, job.cancel_requested, job.error)
            assert said == (model.status, model.attempt, model.robot, model.stopping, model.error)
            assert job.dead_letter == (model.status == "failed")
            assert 0 <= job.attempt <= job.max_attempts

    @invariant()
    def counts_and_depth_agree(self) -> None:
        counts = self.store.counts(*self.clock)
        said = [job.status for job in self.jobs.values()]
        assert counts.pending == said.count("pending")
        assert counts.running == said.count("claimed") + said.count("running")
        assert (counts.completed_today, counts.failed_today) == (
            said.count("completed"),
            said.count("failed"),
        )
        due = [job for job in self.jobs.values() if job.visible]
        assert counts.depth == self.store.depth() == len(due)
        assert all(job.status == "pending" and job.due_ns <= self.wall_ns for job in due)
        second = self.now_ns // SECOND
        waits = [wait_ns for at, wait_ns in self.waits if at > second - LIMITS.wait_window_s]
        assert counts.avg_wait_time_ms == (sum(waits) // len(waits) // MS if waits else 0)

    @invariant()
    def no_robot_holds_more_than_it_may(self) -> None:
        for robot, (_, _, most) in ROBOTS.items():
            assert len(self.store.held(robot)) == self.holds(robot) <= most

    @invariant()
    def announced_facts_follow_the_table(self) -> None:
        taken = self.store.take_facts()
        for fact in taken:
            number, part = self.place
            assert (fact.number, fact.part) == (
                (number, 0) if fact.announced else (number - 1, part + fact.recorded)
            )
            self.place = (fact.number + 1, fact.part)
            self.records[fact.record.seq] = fact.record
        facts = [fact for fact in taken if fact.announced]
        told = [(fact.job.job_id, fact.event.value, fact.job.status.value) for fact in facts]
        expected, self.facts = self.facts, []
        for job_id in {name for name, _, _ in told + expected}:
            assert [f for f in told if f[0] == job_id] == [f for f in expected if f[0] == job_id]
        for job_id, event, status in told:
            assert (self.heard_status.get(job_id), status) in EDGES[event]
            self.heard_status[job_id] = status

    @invariant()
    def every_job_is_there(self) -> None:
        assert {self.store.get(job_id).status for job_id in self.jobs} <= set(JobStatus)


TestAJobStoreAgreesWithANaiveModel = JobStoreMachine.TestCase
TestAJobStoreAgreesWithANaiveModel.settings = settings(max_examples=80, stateful_step_count=40)


@pytest.mark.long
def test_a_job_store_agrees_with_its_model_on_many_more_examples() -> None:
    search_further(JobStoreMachine)
