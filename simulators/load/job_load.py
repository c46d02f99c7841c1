"""The jobs of a scenario, submitted when they are due: an open model, which does not wait for answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from simulators.arrivals import arrival_times
from simulators.draws import choice_of, draw_from, stream
from simulators.load.clock import Clocked
from simulators.load.latency import Latencies
from simulators.load.words import Words
from simulators.scenario import JobClass, Jobs, Segment

MAX_PER_POST = 1_000
MAX_POSTS = 64  # under way at once
MAX_WAITING = 100_000  # jobs, for a post; more are not submitted, and counted
TICK_S = 0.005
PAUSE_S = 0.5  # before a refused post is made again
ANSWER_S = 30.0


class Planned(msgspec.Struct, frozen=True):
    """`number` counts the jobs of a run from 1."""

    number: int
    at_s: float
    body: dict[str, Any]


class Submitted(msgspec.Struct, frozen=True):
    job_id: str
    due_us: int
    acked_us: int


class JobsReport(msgspec.Struct, frozen=True):
    """Counts since the beginning. `offered` were due, `accepted` have the server's word; `dropped` were too
    many for it. `lag` is how late the posts went, an encoded histogram. `done`: no more will come, and
    none is under way."""

    offered: int
    accepted: int
    dropped: int
    refused: dict[str, int]
    lag: bytes
    words: list[Submitted]
    done: bool


def plan(jobs: Jobs, load: list[Segment], seed: int, folder: Path) -> Iterator[Planned]:
    """In order. Each has its length with it, so that it is the same job whoever does it."""
    names = list(jobs.classes)
    which = choice_of([each.weight for each in jobs.classes.values()], stream(seed, "classes"))
    draws = {
        name: draw_from(each.service, stream(seed, f"service {name}")) for name, each in jobs.classes.items()
    }
    number = 0
    for at_s, count in arrival_times(jobs.arrivals, load, stream(seed, "arrivals"), folder):
        for _ in range(count):
            number += 1
            name = names[which()]
            yield Planned(number, at_s, _body(name, jobs.classes[name], draws[name](), number))


def _body(name: str, each: JobClass, service_s: float, number: int) -> dict[str, Any]:
    payload: dict[str, Any] = {"number": number, "service_s": round(service_s, 6)}
    if each.progress_per_job:
        payload["progress_steps"] = each.progress_per_job
    body: dict[str, Any] = {
        "name": name,
        "payload": payload,
        "priority": each.priority,
        "max_attempts": each.max_attempts,
        "required_capabilities": each.required_capabilities,
    }
    given = {"environment": each.environment, "timeout_s": each.timeout, "pending_timeout_s": each.patience}
    return body | {name: value for name, value in given.items() if value is not None}


class JobLoad(Clocked):
    """`run` names the run: with it the requests have names of their own, so that one that was lost is made
    again without harm."""

    def __init__(
        self,
        url: str,
        token: str,
        jobs: Jobs,
        load: list[Segment],
        seed: int,
        folder: str,
        run: str,
    ) -> None:
        super().__init__()
        self._url = url.rstrip("/") + "/api/v1/jobs"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._plan = plan(jobs, load, seed, Path(folder))
        self._run = run
        self._words: Words[Submitted] = Words()
        self._lag = Latencies()
        self._waiting: deque[tuple[Planned, int]] = deque()
        self._posts: set[asyncio.Task[None]] = set()
        self._offered = self._accepted = self._dropped = self._under_way = 0
        self._refused: dict[str, int] = {}
        self._main: asyncio.Task[None] | None = None
        self._all_due = False

    async def start(self, begins_us: int) -> None:
        self._main = self._main or asyncio.get_running_loop().create_task(self._submit(begins_us))

    async def stop(self) -> None:
        tasks = [*self._posts, *([self._main] if self._main else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def report(self, cursor: int) -> JobsReport:
        done = self._all_due and not self._waiting and not self._posts
        return JobsReport(
            self._offered,
            self._accepted,
            self._dropped,
            dict(self._refused),
            self._lag.encoded(),
            self._words.since(cursor),
            done,
        )

    async def _submit(self, begins_us: int) -> None:
        async with httpx.AsyncClient(
            timeout=ANSWER_S, headers=self._headers, limits=httpx.Limits(max_connections=MAX_POSTS)
        ) as http:
            upcoming = next(self._plan, None)
            while upcoming is not None or self._waiting or self._posts:
                now_us = self.clock.now_us()
                while upcoming is not None and (due_us := begins_us + int(upcoming.at_s * 1e6)) <= now_us:
                    self._offer(upcoming, due_us)
                    upcoming = next(self._plan, None)
                self._all_due = upcoming is None
                while self._waiting and len(self._posts) < MAX_POSTS:
                    self._begin_post(http, now_us)
                await asyncio.sleep(TICK_S)

    def _offer(self, planned: Planned, due_us: int) -> None:
        self._offered += 1
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
        else:
            self._waiting.append((planned, due_us))

    def _begin_post(self, http: httpx.AsyncClient, now_us: int) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MAX_PER_POST, len(self._waiting)))]
        for _, due_us in batch:
            self._lag.record_one(now_us - due_us)
        task = asyncio.get_running_loop().create_task(self._post(http, batch))
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)

    async def _post(self, http: httpx.AsyncClient, batch: list[tuple[Planned, int]]) -> None:
        """Until there is a definite answer."""
        bodies = [planned.body for planned, _ in batch]
        headers = {"Idempotency-Key": f"{self._run}-{batch[0][0].number}"}
        while True:
            try:
                answer = await http.post(self._url, json=bodies, headers=headers)
            except httpx.TransportError as error:
                self._note_refusal(type(error).__name__)
                await asyncio.sleep(PAUSE_S)
                continue
            if answer.status_code == 201:
                acked_us = self.clock.now_us()
                for job, (_, due_us) in zip(answer.json()["jobs"], batch, strict=True):
                    self._words.add(Submitted(job["job_id"], due_us, acked_us))
                self._accepted += len(batch)
                return
            self._note_refusal(str(answer.status_code))
            if answer.status_code not in (409, 429, 503):
                self._dropped += len(batch)
                return
            await asyncio.sleep(_seconds(answer.headers.get("Retry-After")) or PAUSE_S)

    def _note_refusal(self, why: str) -> None:
        self._refused[why] = self._refused.get(why, 0) + 1


def _seconds(retry_after: str | None) -> float:
    return min(60.0, float(retry_after)) if retry_after and retry_after.isdigit() else 0.0
