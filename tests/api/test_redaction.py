"""A token is in no log line, whatever its place, whoever logs it, at any level."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import httpx
import pytest
from conftest import World, end_of
from uvicorn.logging import AccessFormatter
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


FORMS = [CANARY, f"crpa_{CANARY}", f"a.{CANARY}.b", f"{CANARY}%0a%22", CANARY + "x" * 9_000]


async def try_on_a_socket(world: World, token: str) -> None:
    plain = f"ws://127.0.0.1:{world.port}/api/v1/ws/live-jobs"
    bearer = {"Authorization": f"Bearer {token}"}
    for url, headers in (
        (f"{plain}?token={token}", {}),
        (f"{plain}?%74oken={token}&interval=5", {}),
        (plain, bearer),
        (plain, bearer | {"X-Api-Key": token}),
        (plain, {"Cookie": f"token={token}"}),
    ):
        with contextlib.suppress(InvalidStatus):
            async with connect(url, additional_headers=headers, compression=None) as socket:
                assert (await end_of(socket))[0] == 4001


async def try_over_http(world: World, token: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.port}/api/v1") as http:
        for headers in (
            {"Authorization": f"Bearer {token}"},
            {"Authorization": token},
            {"Authorization": f"Basic {token}"},
            {"X-Api-Key": token},
        ):
            assert (await http.get("/jobs", headers=headers)).status_code == 401
        answer = await http.get("/jobs", params={"token": token.replace("%", "")})
        assert answer.status_code in (401, 414)


@pytest.mark.parametrize("token", FORMS, ids=["bare", "key", "jwt", "malformed", "oversize"])
async def test_a_canary_token_is_in_no_log(world: World, logged: list[str], token: str) -> None:
    for logger in ("uvicorn.error", "uvicorn.access"):  # the server turned them down when it started
        logging.getLogger(logger).setLevel(1)
    await try_on_a_socket(world, token)
    await try_over_http(world, token)
    assert any("/ws/live-jobs" in line for line in logged), "the test listens in the wrong place"
    assert [line for line in logged if CANARY in line] == []


def test_a_formatter_that_reads_the_arguments_sees_no_token(logged: list[str]) -> None:
    formatter = AccessFormatter("%(request_line)s", use_colors=False)
    arguments = ("127.0.0.1:1", "GET", f"/jobs?token={CANARY}", "1.1", 401)
    record = logging.getLogRecordFactory()("x", 20, "", 0, '%s - "%s %s HTTP/%s" %d', arguments, None)
    assert formatter.format(record) == "GET /jobs?token=[redacted] HTTP/1.1"


def test_a_traceback_shows_no_token(logged: list[str]) -> None:
    try:
        raise ValueError(f"cannot reach ws://host/ws?token={CANARY}")
    except ValueError:
        logging.getLogger("fleetcast").exception("a failure")
    assert any("Traceback" in line for line in logged)
    assert [line for line in logged if CANARY in line] == []


def test_what_is_no_secret_stays() -> None:
    assert redaction.redact("token of job-1 is stale; path /jobs?status=done") == (
        "token of job-1 is stale; path /jobs?status=done"
    )
    assert redaction.redact("GET /x?token=abc&interval=5") == "GET /x?token=[redacted]&interval=5"
