"""The public keys of whoever signs the tokens (RFC 7517), fetched ahead and kept: to check a token costs no
call, and no token says where its key is to be had."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec

from api.background import Background

log = logging.getLogger("fleetcast.jwks")
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
FIRST_RETRY_S = 1.0


class Algorithm(NamedTuple):
    """What a key of the set must say of itself (RFC 7518, 8037) to serve for it."""

    kty: str
    crv: str | None
    names: tuple[str, ...]


ALGORITHMS = {
    "RS256": Algorithm("RSA", None, ("RS256",)),
    "ES256": Algorithm("EC", "P-256", ("ES256",)),
    "EdDSA": Algorithm("OKP", "Ed25519", ("EdDSA", "Ed25519")),
}


class _Document(msgspec.Struct):
    keys: list[Any]


def parse(document: bytes, algorithm: str) -> dict[str | None, jwt.PyJWK]:
    """The keys that serve for `algorithm`, by `kid`. The others are left out with a log line: issuers put
    keys for other uses into the same set. Raises ValueError when none is left."""
    try:
        entries = msgspec.json.decode(document, type=_Document).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is no JSON Web Key Set") from None
    if len(entries) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    keys: dict[str | None, jwt.PyJWK] = {}
    for entry in entries:
        try:
            key = _key(entry, algorithm)
            if key.key_id in keys:
                raise ValueError("its kid stands there twice")
            keys[key.key_id] = key
        except ValueError as fault:
            log.warning("a key of the set is ignored (kid %.64s): %s", _kid(entry), fault)
    if not keys:
        raise ValueError(f"it has no key for {algorithm}")
    return keys


def _kid(entry: Any) -> str:
    return repr(entry.get("kid")) if isinstance(entry, dict) else "none"


def _key(entry: Any, algorithm: str) -> jwt.PyJWK:
    """Raises ValueError that says why it cannot be used."""
    if not isinstance(entry, dict):
        raise ValueError("it is no object")
    _check_purpose(entry, ALGORITHMS[algorithm])
    try:
        key = jwt.PyJWK(entry, algorithm)
    except Exception:  # what a foreign key may hold is not foreseen in full
        raise ValueError("it cannot be read") from None
    weakness = key.Algorithm.check_key_length(key.key)
    if weakness:
        raise ValueError(weakness)
    return key


def _check_purpose(entry: dict[str, Any], wanted: Algorithm) -> None:
    if entry.get("kty") != wanted.kty or (wanted.crv and entry.get("crv") != wanted.crv):
        raise ValueError(f"it is not {wanted.kty} {wanted.crv or ''}".rstrip())
    if entry.get("alg", wanted.names[0]) not in wanted.names:
        raise ValueError(f"its alg is not {wanted.names[0]}")
    if entry.get("use", "sig") != "sig" or "verify" not in _list(entry.get("key_ops", ["verify"])):
        raise ValueError("it is not for checking signatures")
    if "d" in entry:
        raise ValueError("it is a private key, and no longer a secret")
    if not isinstance(entry.get("kid", ""), str):
        raise ValueError("its kid is no text")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


async def fetch(client: httpx.AsyncClient, url: str, timeout_s: float) -> bytes:
    """Bounded in time and bytes; a redirect is not followed. Raises ValueError, OSError (TimeoutError) or
    httpx.HTTPError."""
    async with (
        asyncio.timeout(timeout_s),
        client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
    ):
        if answer.status_code != 200:
            raise ValueError(f"the answer is {answer.status_code}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise ValueError("the answer is compressed")
        document = b""
        async for chunk in answer.aiter_raw():
            document += chunk
            if len(document) > MAX_BYTES:
                raise ValueError(f"the answer is larger than {MAX_BYTES} bytes")
        return document


class KeySet:
    """Fetched anew every `refresh_s`, and for a `kid` that it does not hold once in `window_s` at most, one
    fetch at a time. A fetch that fails leaves the keys as they were."""

    def __init__(self, url: str, algorithm: str, refresh_s: float, window_s: float, timeout_s: float) -> None:
        self._url = url
        self._shown = urlsplit(url)._replace(query="").geturl()
        self._algorithm = algorithm
        self._refresh_s = refresh_s
        self._window_s = window_s
        self._timeout_s = timeout_s
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._document = b""
        self._window_ends = 0.0
        self._fetching: asyncio.Task[bool] | None = None
        self._client: httpx.AsyncClient | None = None
        self._background = Background()

    @property
    def ready(self) -> bool:
        return bool(self._keys)

    def get(self, kid: str | None) -> jwt.PyJWK | None:
        """A token may leave out `kid` where the set has one key only."""
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid) if kid is not None else None

    def start(self) -> None:
        """A proxy of the environment serves for https only: loopback needs none."""
        self._client = httpx.AsyncClient(trust_env=self._url.startswith("https:"), timeout=self._timeout_s)
        self._background.start(self._run)

    async def stop(self) -> None:
        await self._background.stop()
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def learn(self, kid: str | None) -> None:
        """Returns once the key is here or cannot be expected. Whoever comes while a fetch is under way waits
        for that one, and then for one more at most: the first may have begun before the key was there."""
        for _ in range(2):
            if self.get(kid) is not None or (self._fetching is None and not self._may_ask()):
                return
            await self._refresh()

    def _may_ask(self) -> bool:
        now = monotonic()
        if now < self._window_ends:
            return False
        self._window_ends = now + self._window_s
        return True

    async def _run(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            fresh = await self._refresh()
            retry_s = FIRST_RETRY_S if fresh else min(2 * retry_s, self._refresh_s)
            await asyncio.sleep(self._refresh_s if fresh else retry_s)

    async def _refresh(self) -> bool:
        """Joins the fetch that is under way. A caller that leaves does not end it for the others."""
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        return await asyncio.shield(self._fetching)

    async def _fetch(self) -> bool:
        assert self._client is not None
        try:
            document = await fetch(self._client, self._url, self._timeout_s)
            if document != self._document:
                self._keys, self._document = parse(document, self._algorithm), document
                log.info("the key set at %s has %d keys", self._shown, len(self._keys))
            return True
        except (httpx.HTTPError, OSError, ValueError) as error:
            left = "the last good keys stay" if self._keys else "until it is there no token is accepted"
            reason = str(error)[:200] or type(error).__name__
            log.warning("the key set at %s cannot be had: %s; %s", self._shown, reason, left)
            return False
        finally:
            self._fetching = None
