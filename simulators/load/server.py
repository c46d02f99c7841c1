"""The server under test, asked over its documented HTTP."""

from __future__ import annotations

from typing import Any

import httpx

from fleet.errors import Misuse, Unavailable

TIMEOUT_S = 10.0


class Server:
    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(base_url=f"{self.url}/api/v1", headers=headers, timeout=TIMEOUT_S)

    async def close(self) -> None:
        await self._http.aclose()

    async def check(self, operator: bool) -> None:
        """Before anything is started: whether it answers, and takes the token, as an operator's if it has to
        be. Raises Misuse or Unavailable, which say what to do."""
        try:
            answer = await self._http.get("/robots", params={"limit": 1})
            if operator and answer.status_code == 200:
                none = await self._http.post("/jobs", json=[])  # of no jobs; only an operator's is looked at
                answer = none if none.status_code in (401, 403) else answer
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            raise Misuse(f"--url {self.url} is no address of a server") from None
        except httpx.TransportError as error:
            raise Unavailable(
                f"no server answers at {self.url} ({type(error).__name__}): start one, or use --serve"
            ) from None
        if answer.status_code in (401, 403):
            raise Misuse(
                f"the server at {self.url} does not take this token ({_reason(answer)}): robots and jobs "
                "need one of an operator"
            )
        if answer.status_code != 200:
            raise Unavailable(
                f"the server at {self.url} answers {answer.status_code} ({_reason(answer)}) to GET /robots"
            )

    async def counts(self) -> dict[str, int] | None:
        """GET /metrics/fleet; None if it does not answer, or does not have it."""
        found = await self._get("/metrics/fleet")
        return found if isinstance(found, dict) else None

    async def job_status(self, job_id: str) -> str | None:
        """ "" for a job that it does not know; None without an answer."""
        try:
            answer = await self._http.get(f"/jobs/{job_id}")
        except httpx.TransportError:
            return None
        if answer.status_code == 404:
            return ""
        return str(answer.json().get("status", "")) if answer.status_code == 200 else None

    async def _get(self, path: str) -> Any:
        try:
            answer = await self._http.get(path)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None


def _reason(answer: httpx.Response) -> str:
    try:
        found = answer.json()
    except ValueError:
        return answer.reason_phrase
    return str(found.get("detail", "")) if isinstance(found, dict) else answer.reason_phrase
