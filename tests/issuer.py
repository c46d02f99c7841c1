"""An issuer of tokens: signs, and shows its public keys over HTTP; notes who asks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PUBLISHERS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


def private_key(algorithm: str, name: str = "", size: int = 2_048) -> Any:
    return _made(algorithm, name, size)


@cache
def _made(algorithm: str, name: str, size: int) -> Any:
    """The same for the same arguments: an RSA key takes its time."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65_537, size)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


def public_jwk(algorithm: str, name: str = "", size: int = 2_048, **more: Any) -> dict[str, Any]:
    public = private_key(algorithm, name, size).public_key()
    jwk: dict[str, Any] = PUBLISHERS[algorithm].to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    return jwk | {"kid": name, "use": "sig", "alg": algorithm} | more


def private_jwk(algorithm: str, name: str) -> dict[str, Any]:
    jwk: dict[str, Any] = PUBLISHERS[algorithm].to_jwk(private_key(algorithm, name), as_dict=True)
    jwk.pop("key_ops", None)
    return jwk | {"kid": name}


def claims(**more: Any) -> dict[str, Any]:
    """None leaves a claim out."""
    now = int(time.time())
    body = {"sub": "tester", "roles": ["admin"], "type": "access", "iat": now, "exp": now + 60} | more
    return {name: value for name, value in body.items() if value is not None}


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


class Issuer:
    def __init__(self, algorithm: str = "RS256") -> None:
        self.algorithm = algorithm
        self.keys = [public_jwk(algorithm, "one")]
        self.answer = b""  # in place of the key set
        self.asked = 0
        self.talks = asyncio.Event()
        self.talks.set()
        self.drips = False
        self.port = 0
        self.callers: list[asyncio.Future[None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    def token(self, kid: str | None = "one", header: dict[str, Any] | None = None, **more: Any) -> str:
        key = private_key(self.algorithm, kid or "one")
        named = ({} if kid is None else {"kid": kid}) | (header or {})
        return jwt.encode(claims(**more), key, self.algorithm, named)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.callers.append(asyncio.ensure_future(self._answer(reader, writer)))
            await self.callers[-1]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        await self.talks.wait()
        if self.drips:
            await self._drip(writer)
        writer.write(self.answer or answer(json.dumps({"keys": self.keys}).encode()))

    @staticmethod
    async def _drip(writer: asyncio.StreamWriter) -> None:
        """Always just in time for a limit that counts from byte to byte."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.02)


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *lines])
    return head.encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def issuing(algorithm: str = "RS256") -> AsyncIterator[Issuer]:
    issuer = Issuer(algorithm)
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.port = server.sockets[0].getsockname()[1]
    async with server:
        yield issuer
        issuer.talks.set()
        await asyncio.gather(*issuer.callers, return_exceptions=True)
