"""Work that goes on as long as the server does."""

from __future__ import annotations

import asyncio
import logging

import pytest

from api.background import Background


async def test_work_that_fails_is_logged_and_begins_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.background.RESTART_S", 0.0)
    background, runs, done = Background(), [], asyncio.Event()

    async def work() -> None:
        runs.append(len(runs))
        if len(runs) < 3:
            raise RuntimeError("unforeseen")
        done.set()

    with caplog.at_level(logging.ERROR):
        background.start(work)
        await asyncio.wait_for(done.wait(), 10)
    assert len(caplog.records) == 2
    await background.stop()


async def test_stopping_ends_the_work() -> None:
    background, ended, begun = Background(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    background.start(work)
    await begun.wait()
    await background.stop()
    assert ended.is_set()
