"""Jobs that are submitted when they are due, and latencies that count from then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulators.job_stream import ClosedUsers, OpenArrivals, Planned
from simulators.load.job_load import JobLoad, JobsReport, Submitted
from simulators.scenario import ClosedArrivals, Jobs, Segment

WELD = {"service": {"kind": "exponential", "mean": "2s"}}


def jobs(rate: float = 100.0, **classes: Any) -> Jobs:
    return Jobs.model_validate(
        {"arrivals": {"kind": "constant", "rate": rate}, "classes": classes or {"weld": WELD}}
    )


def planned(what: Jobs, seed: int = 1, seconds: float = 10.0) -> list[Planned]:
    return list(OpenArrivals(what, [Segment(0.0, seconds, 1.0, 1.0)], seed, Path()).due(seconds))


# -- what is planned


def test_a_job_says_what_its_class_does() -> None:
    given = {
        "service": {"kind": "constant", "value": "3s"},
        "priority": 4,
        "environment": "hall",
        "required_capabilities": ["lift"],
        "max_attempts": 2,
        "timeout": "1 min",
        "patience": "5 min",
        "progress_per_job": 7,
    }
    first = planned(jobs(weld=given))[0]
    assert (first.number, first.at_s) == (1, 0.0)
    assert first.body == {
        "name": "weld",
        "payload": {"number": 1, "service_s": 3.0, "progress_steps": 7},
        "priority": 4,
        "environment": "hall",
        "required_capabilities": ["lift"],
        "max_attempts": 2,
        "timeout_s": 60.0,
        "pending_timeout_s": 300.0,
    }


def test_classes_come_by_weight_and_keep_their_jobs_when_another_changes() -> None:
    def of(name: str, **more: Any) -> list[float]:
        classes = {"weld": {**WELD, "weight": 3.0}, "carry": {**WELD, **more}}
        made = [each for each in planned(jobs(**classes), seconds=40) if each.body["name"] == name]
        return [each.body["payload"]["service_s"] for each in made]

    assert len(of("weld")) / len(of("carry")) == pytest.approx(3, rel=0.1)
    assert of("weld") == of("weld", service={"kind": "exponential", "mean": "9s"})


def test_the_same_seed_plans_the_same() -> None:
    assert planned(jobs()) == planned(jobs())
    assert planned(jobs()) != planned(jobs(), seed=2)


# -- what is submitted


class Taker:
    """Takes jobs, as `manner` says, and notes their keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.jobs = 0
        self.manner: Callable[[], Awaitable[str]] = self.at_once

    async def at_once(self) -> str:
        return "201 Created"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                fields = {name.lower(): value for name, value in fields.items()}
                listed = json.loads(await reader.readexactly(int(fields["content-length"])))
                self.keys.append(fields["idempotency-key"])
                status = await self.manner()
                made = [{"job_id": f"job-{each['payload']['number']}"} for each in listed]
                self.jobs += len(made) if status.startswith("201") else 0
                body = json.dumps({"jobs": made}).encode()
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def taker() -> AsyncIterator[tuple[Taker, str]]:
    taker = Taker()
    async with await asyncio.start_server(taker.serve, "127.0.0.1", 0) as server:
        yield taker, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def submitted(url: str, seconds: float, rate: float = 100.0) -> tuple[JobsReport, list[Submitted]]:
    load = JobLoad(url, "", jobs(rate), [Segment(0.0, seconds, 1.0, 1.0)], 1, "", "run")
    await load.start(load.clock.now_us())
    try:
        while not (await load.report(0)).done:
            await asyncio.sleep(0.01)
        report = await load.report(0)
        return report, report.words
    finally:
        await load.stop()


async def test_each_job_is_submitted_once_and_latency_counts_from_when_it_was_due() -> None:
    async with taker() as (server, url):
        report, words = await submitted(url, 0.5)
    assert (report.offered, report.accepted, report.dropped, server.jobs) == (50, 50, 0, 50)
    assert sorted(word.job_id for word in words) == sorted(f"job-{n}" for n in range(1, 51))
    due_us = np.array(sorted(word.due_us for word in words))
    assert np.diff(due_us).tolist() == [10_000] * 49
    assert all(word.acked_us >= word.due_us for word in words)


async def stalled(seconds: float, stall_s: float) -> np.ndarray[Any, Any]:
    """Latencies in seconds, of a server that stalls once for all who ask meanwhile."""
    async with taker() as (server, url):
        goes_on = asyncio.Event()
        goes_on.set()

        async def manner() -> str:
            await goes_on.wait()
            return "201 Created"

        async def stall() -> None:
            await asyncio.sleep(seconds / 2)
            goes_on.clear()
            await asyncio.sleep(stall_s)
            goes_on.set()

        server.manner = manner
        stalling = asyncio.ensure_future(stall())
        _, words = await submitted(url, seconds)
        await stalling
    return np.array([(word.acked_us - word.due_us) / 1e6 for word in words])


async def test_a_stall_is_seen_by_all_who_were_due_in_it() -> None:
    """Lateness of this machine adds to it, and never takes away from it."""
    late_s = np.sort(await stalled(1.0, 0.5))
    assert len(late_s) == 100
    waited = late_s[-50:]  # evenly between 0 and half a second
    assert np.all(waited >= np.arange(50) / 100 - 0.02)
    assert np.quantile(late_s, 0.75) >= 0.23


@pytest.mark.long
@pytest.mark.timeout(200)
async def test_a_stall_of_two_seconds_in_a_hundred_is_two_percent_of_the_latencies() -> None:
    late_s = np.sort(await stalled(100.0, 2.0))
    assert len(late_s) == 10_000
    assert np.quantile(late_s, [0.99, 0.995]) == pytest.approx([1.0, 1.5], abs=0.1)
    assert np.quantile(late_s, 0.97) < 0.2
    assert np.histogram(late_s[-200:], bins=4, range=(0, 2.01))[0] == pytest.approx([50] * 4, abs=8)


@pytest.mark.parametrize("refusal", ["503 Service Unavailable", "429 Too Many Requests", "lost"])
async def test_what_was_refused_for_now_or_lost_is_asked_again_under_the_same_key(refusal: str) -> None:
    async with taker() as (server, url):

        async def manner() -> str:
            server.manner = server.at_once
            if refusal == "lost":
                raise ConnectionError
            return refusal

        server.manner = manner
        report, words = await submitted(url, 0.01)
    assert [word.job_id for word in words] == ["job-1"]
    assert server.keys == ["run-1", "run-1"]
    assert sum(report.refused.values()) == 1


async def test_what_is_refused_for_good_is_counted_and_not_asked_again() -> None:
    async with taker() as (server, url):

        async def manner() -> str:
            return "422 Unprocessable Content"

        server.manner = manner
        report, words = await submitted(url, 0.01)
    assert (words, report.dropped, report.refused, len(server.keys)) == ([], 1, {"422": 1}, 1)


async def test_words_are_told_again_until_they_arrived() -> None:
    async with taker() as (_, url):
        load = JobLoad(url, "", jobs(), [Segment(0.0, 0.05, 1.0, 1.0)], 1, "", "run")
        await load.start(load.clock.now_us())
        while not (first := await load.report(0)).done:
            await asyncio.sleep(0.01)
        assert len(first.words) == 5
        assert (await load.report(0)).words == first.words
        assert (await load.report(3)).words == first.words[3:]
        await load.stop()


# -- a closed model


def users(count: int, think_s: float, ends_s: float = 100.0) -> ClosedUsers:
    arrivals = ClosedArrivals.model_validate(
        {"kind": "closed", "users": count, "think": {"kind": "constant", "value": f"{think_s}s"}}
    )
    return ClosedUsers(jobs(), arrivals, ends_s, 1)


def test_a_user_thinks_submits_waits_and_thinks_again() -> None:
    closed = users(2, think_s=3.0)
    assert list(closed.due(2.9)) == []
    first, second = closed.due(3.0)
    assert (first.number, second.number, first.at_s) == (1, 2, 3.0)
    assert list(closed.due(50.0)) == []
    closed.ended(2, 50.0)
    closed.ended(2, 51.0)  # told twice
    assert [(each.number, each.at_s) for each in closed.due(60.0)] == [(3, 53.0)]
    assert not closed.over


def test_after_the_end_nobody_submits_and_it_is_over_when_nobody_waits() -> None:
    closed = users(1, think_s=3.0, ends_s=5.0)
    [only] = closed.due(4.0)
    assert not closed.over
    closed.ended(only.number, 4.5)
    assert closed.over
    assert list(closed.due(100.0)) == []
