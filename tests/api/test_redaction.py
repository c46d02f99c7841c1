"""A token is in no log line, whatever its place, whoever logs it, at any level."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import httpx
import pytest
from conftest import World, end_of
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from api import redaction

CANARY = "canary-7f3a9c-token"


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Every line that any logger writes at any level, formatted as a handler would."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    before = logging.getLogRecordFactory()
    redaction.install()
    keep = Keep(logging.NOTSET)
    loggers = [logging.getLogger(name) for name in ("", "uvicorn", "uvicorn.error", "uvicorn.access")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(keep)
        logger.setLevel(1)
    yield lines
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(keep)
        logger.setLevel(level)
    logging.setLogRecordFactory(before)


async def test_a_canary_token_is_in_no_log(world: World, logged: list[str]) -> None:
    for logger in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(logger).setLevel(1)
    base = f"http://127.0.0.1:{world.port}/api/v1"
    for token in (CANARY, f"crpa_{CANARY}", f"a.{CANARY}.b", f"{CANARY}%0a%22", CANARY + "x" * 9_000):
        url = f"ws://127.0.0.1:{world.port}/api/v1/ws/live-jobs?token={token}"
        with contextlib.suppress(InvalidStatus):
            async with connect(url, compression=None) as socket:
                await end_of(socket)
        with contextlib.suppress(InvalidStatus):
            headers = {"Authorization": f"Bearer {token}", "X-Api-Key": token}
            plain = f"ws://127.0.0.1:{world.port}/api/v1/ws/live-jobs"
            async with connect(plain, additional_headers=headers, compression=None) as socket:
                await end_of(socket)
        async with httpx.AsyncClient() as http:
            for given in (
                {"Authorization": f"Bearer {token}"},
                {"Authorization": token},
                {"X-Api-Key": token},
            ):
                assert (await http.get(f"{base}/jobs", headers=given)).status_code == 401
            if "%" not in token:
                await http.get(f"{base}/jobs?token={token}")
    ours = [line for line in logged if "uvicorn" in line or "WebSocket" in line or line.startswith("<")]
    assert ours, "nothing was logged: the test listens in the wrong place"
    assert [line for line in logged if CANARY in line] == []


def test_what_is_no_secret_stays() -> None:
    assert redaction.redact("token of job-1 is stale; path /jobs?status=done") == (
        "token of job-1 is stale; path /jobs?status=done"
    )
    assert redaction.redact("GET /x?token=abc&interval=5") == "GET /x?token=[redacted]&interval=5"
