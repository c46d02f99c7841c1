"""Those who submit jobs over HTTP, look at them, cancel some and retry some; and what they were told."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine
from random import Random
from typing import Any

import httpx
import msgspec
from checkers import history
from checkers.history import Cancelled, Created, Invoked, Recorder, Shown

from fleet.job import JobStatus

PAUSE_S = 0.5
TIMEOUT_S = 30.0  # the server is to answer long before
UNDECIDED = (0, 409, 429, 503)  # say it again under the same key
CUT_OFF = 0.03  # the share of requests whose connection is cut


class Answer(msgspec.Struct):
    """Of one request; `status` 0 where the connection ended instead."""

    at_ns: int
    took_s: float
    status: int
    retry_after: str | None = None
    body: Any = None
    error: str = ""
    asked: str = ""  # method and path

    @property
    def code(self) -> str:
        return self.body.get("code", "") if isinstance(self.body, dict) else ""


class Clerk:
    """Makes requests, and writes down what came of them. `answers` are all but those that it cut off."""

    def __init__(
        self, url: str, headers: dict[str, str], recorder: Recorder, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.answers: list[Answer] = []
        self.recorder = recorder
        self._http = httpx.AsyncClient(
            base_url=f"{url}/api/v1",
            headers=headers,
            timeout=timeout_s,
            # The server ends idle connections after 5 s, which must not meet a request on its way.
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=20, keepalive_expiry=2.0),
        )

    async def ask(self, method: str, path: str, cut_after_s: float | None = None, **given: Any) -> Answer:
        began, asked = time.monotonic(), f"{method} {path}"
        try:
            async with asyncio.timeout(cut_after_s):
                response = await self._http.request(method, path, **given)
        except httpx.TransportError as error:
            took_s = time.monotonic() - began
            return self._note(Answer(time.monotonic_ns(), took_s, 0, error=type(error).__name__, asked=asked))
        except TimeoutError:
            return Answer(time.monotonic_ns(), time.monotonic() - began, 0)
        again = response.headers.get("Retry-After")
        took_s = time.monotonic() - began
        body, status = response.json(), response.status_code
        return self._note(Answer(time.monotonic_ns(), took_s, status, again, body, asked=asked))

    def _note(self, answer: Answer) -> Answer:
        self.answers.append(msgspec.structs.replace(answer, body=None))
        return answer

    def end(self, invoked: Invoked, answer: Answer, told: history.AnyTold | None = None) -> None:
        """A refusal that names what is wrong changed nothing; else nobody knows."""
        if 200 <= answer.status < 300:
            self.recorder.ok(invoked, told)
        elif 400 <= answer.status < 500 and answer.status not in (408, 429) and answer.code != "in_flight":
            self.recorder.fail(invoked, answer.code)
        else:
            self.recorder.unknown(invoked)

    async def close(self) -> None:
        await self._http.aclose()


class Producer:
    """Submits a list every `pause_s` on average, until it is told that it is `enough`."""

    def __init__(self, name: str, clerk: Clerk, seed: int, pause_s: float) -> None:
        self.enough = asyncio.Event()
        self._name = name
        self._clerk = clerk
        self._rng = Random(f"{seed} {name}")
        self._pause_s = pause_s
        self._keys = itertools.count(1)
        self._errands: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Returns when all that it began is done: no submit is left without a definite answer."""
        while not self.enough.is_set():
            self._begin(self._submit())
            try:
                async with asyncio.timeout(self._rng.expovariate(1 / self._pause_s)):
                    await self.enough.wait()
            except TimeoutError:
                pass
        while self._errands:
            await asyncio.gather(*self._errands)

    def _begin(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _cut(self) -> float | None:
        return self._rng.uniform(0, 0.05) if self._rng.random() < CUT_OFF else None

    async def _pause(self, answer: Answer) -> None:
        await asyncio.sleep(float(answer.retry_after or 0) + self._rng.uniform(0, PAUSE_S))

    # -- submitting

    async def _submit(self) -> None:
        """Said again under the same key until the answer is definite."""
        rng, key = self._rng, f"{self._name}-{next(self._keys)}"
        submissions = [f"{key}.{n}" for n in range(rng.choice([1, 2, 3, 5]))]
        spec: dict[str, Any] = {"max_attempts": rng.choice([2, 3, 5])}
        if rng.random() < 0.04:
            spec["timeout_s"] = 2.0
        if rng.random() < 0.04:
            spec["pending_timeout_s"] = 20.0
        call = history.Submit(submissions, key, **spec)
        bodies = [{"name": "weld", "payload": {"submission": one}, **spec} for one in submissions]
        priority = rng.choice([3, 10, 10])
        while True:
            invoked = self._clerk.recorder.invoke(self._name, call)
            answer = await self._clerk.ask(
                "POST",
                "/jobs",
                self._cut(),
                json=[body | {"priority": priority} for body in bodies],
                headers={"Idempotency-Key": key},
            )
            job_ids = [job["job_id"] for job in answer.body["jobs"]] if answer.status == 201 else []
            self._clerk.end(invoked, answer, Created(job_ids) if job_ids else None)
            if answer.status not in UNDECIDED or answer.code == "wrong_state":
                break
            await self._pause(answer)
        for job_id in job_ids:
            self._follow(job_id)

    def _follow(self, job_id: str) -> None:
        dice = self._rng.random()
        if dice < 0.08:
            self._begin(self._cancel(job_id, self._rng.uniform(0, 3)))
        if dice < 0.20:
            self._begin(self._look(job_id, self._rng.uniform(1, 10)))

    # -- what comes after

    async def _later(self, wait_s: float) -> bool:
        """Whether it is still worth while."""
        try:
            async with asyncio.timeout(wait_s):
                await self.enough.wait()
        except TimeoutError:
            return True
        return False

    async def _cancel(self, job_id: str, wait_s: float) -> None:
        if not await self._later(wait_s):
            return
        invoked = self._clerk.recorder.invoke(self._name, history.Cancel(job_id))
        answer = await self._clerk.ask("POST", f"/jobs/{job_id}/cancel", self._cut())
        told = None
        if answer.status == 200:
            told = Cancelled(answer.body["cancelled"], JobStatus(answer.body["previous_status"]))
        self._clerk.end(invoked, answer, told)
        if answer.status in (0, 503) and self._rng.random() < 0.7:
            await self._cancel(job_id, PAUSE_S)

    async def _look(self, job_id: str, wait_s: float) -> None:
        if not await self._later(wait_s):
            return
        invoked = self._clerk.recorder.invoke(self._name, history.Read(job_id))
        answer = await self._clerk.ask("GET", f"/jobs/{job_id}", self._cut())
        told = None
        if answer.status == 200:
            told = Shown(JobStatus(answer.body["status"]), answer.body["attempt"])
        self._clerk.end(invoked, answer, told)
        if told is None:
            await self._look(job_id, PAUSE_S)
        elif told.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            await self._retry(job_id)

    async def _retry(self, job_id: str) -> None:
        key = f"{self._name}-{next(self._keys)}"
        while True:
            invoked = self._clerk.recorder.invoke(self._name, history.Retry(job_id, key))
            answer = await self._clerk.ask(
                "POST", f"/jobs/{job_id}/retry", self._cut(), headers={"Idempotency-Key": key}
            )
            told = Created([answer.body["new_job_id"]]) if answer.status == 201 else None
            self._clerk.end(invoked, answer, told)
            if answer.status not in UNDECIDED or answer.code == "wrong_state":
                break
            await self._pause(answer)
