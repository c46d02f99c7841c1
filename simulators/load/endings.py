"""Who submitted a job learns that it is over: from live-jobs, and by asking where that was not heard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from urllib.parse import quote

import httpx
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from fleet.events import JobStatusChanged

log = logging.getLogger("fleetcast.endings")
_quiet = logging.getLogger("fleetcast.endings.socket")  # the client's own words hold the token
_quiet.disabled = True
TERMINAL = frozenset({"completed", "failed", "cancelled"})
PAUSE_S = 0.5
_read = msgspec.json.Decoder(JobStatusChanged).decode


class Endings:
    """`tell` hears of the end of every job, ours or not, maybe twice. `open_jobs` are those that are waited
    for: what a connection that was lost may have told of them is asked for, one by one."""

    def __init__(
        self, url: str, token: str, tell: Callable[[str], None], open_jobs: Callable[[], Iterable[str]]
    ) -> None:
        query = f"?token={quote(token, safe='')}" if token else ""
        self._socket = url.replace("http", "ws", 1).rstrip("/") + "/api/v1/ws/live-jobs" + query
        self._tell = tell
        self._open_jobs = open_jobs
        self._missed = asyncio.Event()

    def ask(self) -> None:
        """Something may have been missed."""
        self._missed.set()

    async def run(self, http: httpx.AsyncClient) -> None:
        """Until it is cancelled."""
        await asyncio.gather(self._listen(), self._ask(http))

    async def _listen(self) -> None:
        while True:
            try:
                async with connect(self._socket, logger=_quiet, compression=None) as socket:
                    self._missed.set()
                    async for message in socket:
                        with contextlib.suppress(msgspec.DecodeError):
                            event = _read(message)
                            if event.status in TERMINAL:
                                self._tell(event.job_id)
            except (OSError, WebSocketException) as error:
                log.info("live-jobs cannot be heard: %s", type(error).__name__)
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, http: httpx.AsyncClient) -> None:
        while True:
            await self._missed.wait()
            self._missed.clear()
            for job_id in list(self._open_jobs()):
                if not await self._ask_for(http, job_id):
                    self._missed.set()  # once more, after a pause
                    await asyncio.sleep(PAUSE_S)
                    break

    async def _ask_for(self, http: httpx.AsyncClient, job_id: str) -> bool:
        """False without an answer."""
        try:
            answer = await http.get(f"/jobs/{job_id}")
            if answer.status_code == 404 or answer.json().get("status") in TERMINAL:
                self._tell(job_id)
        except (httpx.TransportError, ValueError):
            return False
        return answer.status_code in (200, 404)
