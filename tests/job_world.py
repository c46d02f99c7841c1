"""A job store and a clock that the test moves."""

from __future__ import annotations

from random import Random
from typing import Any

from fleet.job import Job, JobEvent
from fleet.job_store import JobStore
from fleet.limits import MS, Limits
from fleet.messages import Answer, Claim, Granted, JobSpec, Parked, Report, Submit

EPOCH_NS = 1_736_937_000_000_000_000
E = JobEvent


class JobWorld:
    """A store and a clock that the test moves."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.store = JobStore(self.limits, Random(1))
        self.now_ns = 0
        self.requests = 0

    @property
    def clock(self) -> tuple[int, int]:
        return self.now_ns, EPOCH_NS + self.now_ns

    def after(self, ms: int) -> None:
        self.now_ns += ms * MS
        self.store.tick(*self.clock)

    def submit(self, *job_ids: str, **spec: Any) -> list[Job]:
        return self.store.submit(
            Submit(list(job_ids), [JobSpec(name="n", **spec)] * len(job_ids)), *self.clock
        )

    def ask(self, robot: str = "r", wait_ms: int = 0, request_id: str = "", **claim: Any) -> Answer | Parked:
        self.requests += 1
        fields = {"door": "d", "limit": 1, "capabilities": [], "environment": "e", "max_concurrent_jobs": 5}
        fields |= {"robot_id": robot, "wait_ms": wait_ms, "request_id": request_id or f"q{self.requests}"}
        return self.store.claim(Claim(**fields | claim), *self.clock)

    def granted(self, robot: str = "r", **claim: Any) -> list[str]:
        answer = self.ask(robot, **claim)
        assert isinstance(answer, Answer)
        return [grant.job.job_id for grant in answer.grants]

    def grant(self, robot: str = "r") -> Granted:
        answer = self.ask(robot)
        assert isinstance(answer, Answer)
        return answer.grants[0]

    def say(self, event: JobEvent, token: int, job_id: str = "j", robot: str = "r", **more: Any) -> Job:
        return self.store.report(Report(event, job_id, robot, token, **more), *self.clock)

    def running(self, **spec: Any) -> int:
        """Job j, held by robot r and started; its token."""
        self.submit("j", **spec)
        token = self.grant().token
        self.say(E.START, token)
        return token

    def answers(self, door: str = "d") -> list[tuple[str, list[str]]]:
        page = self.store.outbox(door, 0, 0, self.now_ns)
        return [(a.robot_id, [grant.job.job_id for grant in a.grants]) for a in page.answers]
