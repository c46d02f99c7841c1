"""The jobs of a scenario, submitted when they are due."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from pathlib import Path

import httpx
import msgspec

from simulators.job_stream import Arrivals, Planned, arrivals_of
from simulators.load.clock import Clocked
from simulators.load.endings import Endings
from simulators.load.latency import Latencies
from simulators.load.words import Words
from simulators.scenario import ClosedArrivals, Jobs, Segment

MAX_PER_POST = 1_000
MAX_POSTS = 64  # under way at once
MAX_EARLY = 100_000  # ends of jobs that may be ours
MAX_WAITING = 100_000  # jobs, for a post; more are not submitted, and counted
TICK_S = 0.005
PAUSE_S = 0.5  # before a refused post is made again
ANSWER_S = 30.0


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
        self._url = url.rstrip("/") + "/api/v1"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._closed = isinstance(jobs.arrivals, ClosedArrivals)
        self._arrivals: Arrivals = arrivals_of(jobs, load, seed, Path(folder))
        self._numbers: dict[str, int] = {}  # of open jobs, in a closed model
        self._over_early: set[str] = set()  # told before their answer came
        self._begins_us = 0
        self._endings = Endings(url, token, self._on_end, lambda: self._numbers)
        self._run = run
        self._words: Words[Submitted] = Words()
        self._lag = Latencies()
        self._waiting: deque[tuple[Planned, int]] = deque()
        self._posts: set[asyncio.Task[None]] = set()
        self._offered = self._accepted = self._dropped = 0
        self._refused: dict[str, int] = {}
        self._main: asyncio.Task[None] | None = None
        self._all_due = self._hushed = self._stopped = False

    async def start(self, begins_us: int) -> None:
        self._begins_us = begins_us
        self._main = self._main or asyncio.get_running_loop().create_task(self._submit())

    async def hush(self) -> None:
        """No more jobs, if some were still to come."""
        self._hushed = True

    async def stop(self) -> None:
        """Not by cancelling it: its connections would be left half closed."""
        self._stopped = True
        for task in self._posts:
            task.cancel()
        await asyncio.gather(*self._posts, *([self._main] if self._main else []), return_exceptions=True)

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

    async def _submit(self) -> None:
        async with httpx.AsyncClient(
            base_url=self._url,
            timeout=ANSWER_S,
            headers=self._headers,
            limits=httpx.Limits(max_connections=MAX_POSTS),
        ) as http:
            listening = asyncio.ensure_future(self._endings.run(http)) if self._closed else None
            try:
                while not self._stopped and (not self._all_due or self._waiting or self._posts):
                    now_us = self.clock.now_us()
                    now_s = (now_us - self._begins_us) / 1e6
                    for planned in () if self._hushed else self._arrivals.due(now_s):
                        self._offer(planned, self._begins_us + int(planned.at_s * 1e6))
                    self._all_due = self._hushed or self._arrivals.over
                    while self._waiting and len(self._posts) < MAX_POSTS:
                        self._begin_post(http, now_us)
                    await asyncio.sleep(TICK_S)
            finally:
                if listening is not None:
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)

    def _on_end(self, job_id: str) -> None:
        number = self._numbers.pop(job_id, None)
        if number is not None:
            self._arrivals.ended(number, (self.clock.now_us() - self._begins_us) / 1e6)
        elif self._posts:  # perhaps ours, whose answer is on its way
            self._over_early.add(job_id)
            if len(self._over_early) > MAX_EARLY:
                self._over_early.clear()
                self._endings.ask()

    def _note_open(self, job_id: str, number: int) -> None:
        self._numbers[job_id] = number
        if job_id in self._over_early:
            self._on_end(job_id)

    def _post_ended(self, post: asyncio.Task[None]) -> None:
        self._posts.discard(post)
        if not self._posts:
            self._over_early.clear()

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
        task.add_done_callback(self._post_ended)

    async def _post(self, http: httpx.AsyncClient, batch: list[tuple[Planned, int]]) -> None:
        """Until there is a definite answer."""
        bodies = [planned.body for planned, _ in batch]
        headers = {"Idempotency-Key": f"{self._run}-{batch[0][0].number}"}
        for tries in itertools.count(1):
            try:
                answer = await http.post("/jobs", json=bodies, headers=headers)
            except httpx.TransportError as error:
                self._note_refusal(type(error).__name__)
                await asyncio.sleep(PAUSE_S)
                continue
            if answer.status_code == 201:
                acked_us = self.clock.now_us()
                for job, (planned, due_us) in zip(answer.json()["jobs"], batch, strict=True):
                    self._words.add(Submitted(job["job_id"], due_us, acked_us))
                    if self._closed:
                        self._note_open(job["job_id"], planned.number)
                self._accepted += len(batch)
                if tries > 1:  # they may have been made, and be over, since the first
                    self._endings.ask()
                return
            self._note_refusal(str(answer.status_code))
            if answer.status_code not in (409, 429, 503):
                self._dropped += len(batch)
                for planned, _ in batch:
                    self._arrivals.ended(planned.number, (self.clock.now_us() - self._begins_us) / 1e6)
                return
            await asyncio.sleep(_seconds(answer.headers.get("Retry-After")) or PAUSE_S)

    def _note_refusal(self, why: str) -> None:
        self._refused[why] = self._refused.get(why, 0) + 1


def _seconds(retry_after: str | None) -> float:
    return min(60.0, float(retry_after)) if retry_after and retry_after.isdigit() else 0.0
