"""Tokens and keys: what opens a door, what does not, and what a hostile token can set in motion."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest
from conftest import SECRET, World, end_of, quick_limits, served
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issuer import Issuer, answer, claims, issuing, part, private_jwk, private_key, public_jwk
from websockets.exceptions import ConnectionClosed

from actors.local import LocalFleet
from api.jwks import MAX_BYTES, MAX_KEYS, parse
from fleet.keys import digest_of, key_secret
from fleet.messages import IssueKey

REFUSED = (4001, "Invalid authentication token")
STREAMS = ["live-jobs", "robot-status", "queue-metrics", "metrics/stream"]


@asynccontextmanager
async def fresh(**settings: Any) -> AsyncIterator[World]:
    fleet = LocalFleet(quick_limits())
    async with served(fleet, **settings) as world:
        yield world
    await fleet.close()


@asynccontextmanager
async def trusting(issuer: Issuer, **settings: Any) -> AsyncIterator[World]:
    """A door that believes this issuer."""
    named = {"jwt_secret_key": None, "jwt_algorithm": issuer.algorithm, "jwt_jwks_url": issuer.url}
    async with fresh(**named | {"jwt_jwks_window_s": 3_600} | settings) as world:
        yield world


async def opened(world: World, token: str) -> bool:
    async with world.open("live-jobs", token) as socket:
        try:
            await socket.send("ping")
            return await socket.recv() == "pong"
        except ConnectionClosed:
            assert (socket.close_code, socket.close_reason) == REFUSED
            return False


async def status(world: World, token: str, path: str = "jobs") -> int:
    async with httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{world.port}/api/v1/{path}"
        return (await http.get(url, headers={"Authorization": f"Bearer {token}"})).status_code


# -- what opens a door


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_of_the_issuer_opens_and_one_of_another_key_does_not(algorithm: str) -> None:
    async with issuing(algorithm) as issuer, trusting(issuer) as world:
        assert await opened(world, issuer.token())
        assert await status(world, issuer.token()) == 200
        foreign = jwt.encode(claims(), private_key(algorithm, "other"), algorithm, {"kid": "one"})
        assert not await opened(world, foreign)
        assert await status(world, foreign) == 401
        assert issuer.asked == 1


async def test_a_token_may_leave_out_its_kid_where_there_is_one_key_only() -> None:
    async with issuing() as issuer, trusting(issuer, jwt_jwks_window_s=0.001) as world:
        assert await opened(world, issuer.token(None))
        issuer.keys.append(public_jwk("RS256", "two"))
        assert await opened(world, issuer.token("two"))
        assert not await opened(world, issuer.token(None))
        assert issuer.asked <= 4  # at the start, for the second key, and for the last token twice at most


async def test_a_rotated_key_works_at_once_and_a_withdrawn_one_no_more() -> None:
    async with issuing() as issuer, trusting(issuer) as world:
        assert await opened(world, issuer.token())
        issuer.keys = [public_jwk("RS256", "two")]
        assert await opened(world, issuer.token("two"))
        assert not await opened(world, issuer.token("one"))


async def test_the_keys_are_fetched_anew_when_their_period_is_over() -> None:
    async with issuing() as issuer, trusting(issuer, jwt_jwks_refresh_s=1) as world:
        assert await opened(world, issuer.token())
        issuer.keys = [public_jwk("RS256", "two")]
        while await status(world, issuer.token("one")) != 401:
            pass
        assert await opened(world, issuer.token("two"))


# -- what a hostile token can set in motion


async def test_a_thousand_unknown_kids_are_refused_and_fetch_the_keys_once() -> None:
    async with issuing() as issuer, trusting(issuer) as world, httpx.AsyncClient() as http:
        signed = issuer.token()
        url = f"http://127.0.0.1:{world.port}/api/v1/jobs"
        codes = set()
        for batch in range(10):
            tokens = [issuer.token(header={"kid": f"{batch}-{number}"}) for number in range(100)]
            asked = [http.get(url, headers={"Authorization": f"Bearer {token}"}) for token in tokens]
            codes |= {got.status_code for got in await asyncio.gather(*asked)}
        assert not await opened(world, issuer.token(header={"kid": "x"}))
        assert await opened(world, signed)
    assert codes == {401}
    assert issuer.asked == 2  # at the start, and for all of these


async def test_another_window_admits_another_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_000.0
    monkeypatch.setattr("api.jwks.monotonic", lambda: now_s)
    async with issuing() as issuer, trusting(issuer, jwt_jwks_window_s=10) as world:
        for now_s, asked in ((1_000.0, 2), (1_009.9, 2), (1_010.0, 3), (1_010.1, 3)):  # noqa: B007
            assert await status(world, issuer.token(header={"kid": "x"})) == 401
            assert issuer.asked == asked


async def test_all_who_wait_for_a_new_key_share_one_fetch_and_others_are_served_meanwhile() -> None:
    async with issuing() as issuer, trusting(issuer) as world:
        assert await opened(world, issuer.token())
        issuer.keys.append(public_jwk("RS256", "two"))
        issuer.talks.clear()
        waiting = [asyncio.create_task(opened(world, issuer.token("two"))) for _ in range(20)]
        while issuer.asked < 2:
            await asyncio.sleep(0)
        assert await opened(world, issuer.token("one"))
        assert not any(task.done() for task in waiting)
        issuer.talks.set()
        assert all(await asyncio.gather(*waiting))
        assert issuer.asked == 2


async def test_a_client_that_leaves_while_it_waits_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with issuing() as issuer, trusting(issuer) as world:
        assert await opened(world, issuer.token())
        issuer.talks.clear()
        async with asyncio.TaskGroup() as group:
            leaver = group.create_task(opened(world, issuer.token("two")))
            while issuer.asked < 2:
                await asyncio.sleep(0)
            leaver.cancel()
        issuer.talks.set()
        assert await opened(world, issuer.token())
        assert (await own_connections(world, issuer))["live-jobs"] == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def own_connections(world: World, issuer: Issuer) -> dict[str, int]:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {issuer.token()}"}) as http:
        got = await http.get(f"http://127.0.0.1:{world.port}/api/v1/metrics/connections")
    counts: dict[str, int] = got.json()["connections"]
    return counts


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_a_token_that_brings_its_own_key_is_refused_and_nobody_is_asked(name: str) -> None:
    async with issuing() as issuer, issuing() as trap, trusting(issuer) as world:
        assert await opened(world, issuer.token())
        own = {"jwk": public_jwk("RS256", "mine"), "x5c": ["MIIB"]}.get(name, trap.url)
        key = private_key("RS256", "mine")
        for kid, signer in (("mine", key), ("one", key), ("one", private_key("RS256", "one"))):
            assert not await opened(world, jwt.encode(claims(), signer, "RS256", {"kid": kid, name: own}))
        assert (trap.asked, issuer.asked) == (0, 1)
    async with fresh() as world, issuing() as trap:
        assert not await opened(world, jwt.encode(claims(), SECRET, "HS256", {name: trap.url}))
        assert trap.asked == 0


def by_hand(header: dict[str, Any], secret: bytes | None) -> str:
    """What a library refuses to make: HMAC with a public key as its secret, or no signature."""
    text = f"{part(header)}.{part(claims())}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256)) if secret else ''}"


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", None])
async def test_a_token_without_a_signature_is_refused(world: World, alg: str | None) -> None:
    assert not await opened(world, by_hand({"alg": alg, "typ": "JWT"}, None))
    async with issuing() as issuer, trusting(issuer) as other:
        assert not await opened(other, by_hand({"alg": alg, "kid": "one"}, None))


@pytest.mark.parametrize("alg", ["HS256", "RS256"])
async def test_a_public_key_is_no_secret_to_sign_with(alg: str) -> None:
    public = private_key("RS256", "one").public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    async with issuing() as issuer, trusting(issuer) as world:
        jwk = json.dumps(issuer.keys[0]).encode()
        for secret in (pem, pem.strip(), der, jwk):
            assert not await opened(world, by_hand({"alg": alg, "kid": "one"}, secret))


async def test_another_algorithm_of_the_same_key_is_refused() -> None:
    async with issuing() as issuer, trusting(issuer) as world:
        for alg in ("RS512", "PS256"):
            for kid in ("one", "two"):
                token = jwt.encode(claims(), private_key("RS256", "one"), alg, {"kid": kid})
                assert not await opened(world, token)
        assert issuer.asked == 1


async def test_an_unknown_critical_extension_is_refused() -> None:
    async with issuing() as issuer, trusting(issuer) as world:
        assert not await opened(world, issuer.token(header={"crit": ["x"], "x": 1}))
        assert not await opened(world, issuer.token(header={"crit": []}))


# -- claims


def hs256(**more: Any) -> str:
    return jwt.encode(claims(**more), SECRET, algorithm="HS256")


async def test_within_the_leeway_a_token_is_good_and_beyond_it_is_not() -> None:
    now = int(time.time())
    async with fresh(jwt_leeway_s=100) as world:
        for within, beyond in (
            ({"exp": now - 40}, {"exp": now - 101}),
            ({"nbf": now + 40}, {"nbf": now + 1_000}),
            ({"iat": now + 40}, {"iat": now + 1_000}),
        ):
            assert await opened(world, hs256(**within))
            assert not await opened(world, hs256(**beyond))


async def test_a_leeway_ends_a_socket_later_and_yet_ends_it() -> None:
    now = int(time.time())
    async with fresh(jwt_leeway_s=10) as world:
        sooner, later = (world.open("live-jobs", hs256(exp=now - early)) for early in (7, 0))
        async with later as other, sooner as socket:
            assert await end_of(socket) == (4001, "token expired")
            await other.send("ping")
            assert await other.recv() == "pong"


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": None},
        {"aud": "other"},
        {"aud": ["other", "third"]},
        {"aud": 7},
        {"iss": None},
        {"iss": "other"},
        {"iss": "us "},
        {"iss": ["us"]},
    ],
)
async def test_a_wrong_audience_or_issuer_is_refused_where_one_is_set(wrong: dict[str, Any]) -> None:
    async with fresh(jwt_audience="fleet", jwt_issuer="us") as world:
        body = claims(aud="fleet", iss="us") | wrong
        bad = jwt.PyJWS().encode(
            json.dumps({k: v for k, v in body.items() if v is not None}).encode(), SECRET, "HS256"
        )
        assert not await opened(world, bad)
        assert await opened(world, hs256(aud=["other", "fleet"], iss="us"))


@pytest.mark.parametrize(
    "odd",
    [
        {"exp": 10**400},
        {"exp": "4000000000"},
        {"exp": True},
        {"exp": None},
        {"iat": None},
        {"iat": "1"},
        {"nbf": "1"},
        {"sub": ""},
        {"sub": None},
        {"sub": 7},
        {"roles": "admin"},
        {"roles": None},
        {"roles": [["admin"], {}, None, 1]},
        {"type": None},
        {"type": "refresh"},
        {"type": ["access"]},
    ],
)
async def test_a_well_signed_token_with_odd_claims_is_refused_like_any_other(
    world: World, odd: dict[str, Any]
) -> None:
    """`type: refresh` begins with no key prefix and must not fall through to another check either."""
    text = json.dumps({k: v for k, v in (claims() | odd).items() if v is not None})
    token = jwt.PyJWS().encode(text.encode(), SECRET, "HS256")
    assert await status(world, token) == 401
    assert not await opened(world, token)
    assert await opened(world, hs256())


# -- the key set


# With the key that the token was signed with, so that only what is wrong with each stands in the way.
SOUND = {"keys": [public_jwk("RS256", "two")]}
BAD_ANSWERS = {
    "an error": answer(json.dumps(SOUND).encode(), "500 Internal Server Error"),
    "no JSON": answer(b"<html>"),
    "no key set": answer(b'{"keys":7}'),
    "too deep": answer(b"[" * 100_000),
    "no keys": answer(b'{"keys":[]}'),
    "too many keys": answer(json.dumps({"keys": SOUND["keys"] + [{}] * MAX_KEYS}).encode()),
    "too large": answer(json.dumps(SOUND).encode() + b" " * MAX_BYTES),
    "compressed": answer(gzip.compress(json.dumps(SOUND).encode()), Content_Encoding="gzip"),
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "cut short": answer(b"{}")[:-1],
}


@pytest.mark.parametrize("bad", BAD_ANSWERS)
async def test_a_fetch_that_fails_keeps_the_last_good_keys_and_logs_one_line(
    bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with issuing() as issuer, trusting(issuer, jwt_jwks_url=f"{issuer.url}?key=s3cret") as world:
        assert await opened(world, issuer.token())
        issuer.answer = BAD_ANSWERS[bad]
        assert not await opened(world, issuer.token("two"))
        assert await opened(world, issuer.token())
    [line] = [record.getMessage() for record in caplog.records if record.name == "fleetcast.jwks"]
    assert "the last good keys stay" in line
    assert issuer.url in line
    assert "s3cret" not in line
    assert "eyJ" not in line


async def test_a_redirect_of_the_key_set_is_not_followed() -> None:
    async with issuing() as issuer, issuing() as trap, trusting(issuer) as world:
        assert await opened(world, issuer.token())
        trap.keys = [public_jwk("RS256", "two")]
        issuer.answer = answer(b"", "302 Found", Location=trap.url)
        assert not await opened(world, issuer.token("two"))
        assert trap.asked == 0


@pytest.mark.parametrize("drips", [False, True])
async def test_an_issuer_that_does_not_answer_costs_a_handshake_its_time_limit_only(drips: bool) -> None:
    async with issuing() as issuer, trusting(issuer, jwt_jwks_timeout_s=0.2) as world:
        assert await opened(world, issuer.token())
        issuer.drips = drips
        if not drips:
            issuer.talks.clear()
        assert not await opened(world, issuer.token("two"))
        assert await opened(world, issuer.token())


async def test_without_the_issuers_keys_the_door_is_not_ready_and_asks_for_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.jwks.FIRST_RETRY_S", 0.05)
    secret = key_secret(b"\7" * 32)
    async with issuing() as issuer:
        issuer.answer = answer(b"", "503 Service Unavailable")
        async with trusting(issuer) as world:
            await world.fleet.administer(IssueKey("k", "r", "", digest_of(secret)))
            assert await status(world, issuer.token()) == 503
            assert await status(world, "health", "health/ready") == 503
            async with world.open("live-jobs", issuer.token()) as socket:
                assert await end_of(socket) == (1013, "the keys to check tokens with are not here yet")
            assert not await opened(world, "garbage")
            while not await opened(world, secret):
                pass
            issuer.answer = b""
            while await status(world, "health", "health/ready") != 200:
                pass
            assert await opened(world, issuer.token())


UNUSABLE = {
    "an RSA key of 1,024 bits": ("RS256", public_jwk("RS256", "bad", 1_024)),
    "another use": ("RS256", public_jwk("RS256", "bad", use="enc")),
    "other operations": ("RS256", public_jwk("RS256", "bad", key_ops=["encrypt"])),
    "operations that are no list": ("RS256", public_jwk("RS256", "bad", key_ops="verify")),
    "another algorithm": ("RS256", public_jwk("RS256", "bad", alg="RS512")),
    "another type": ("RS256", public_jwk("ES256", "bad")),
    "a secret": ("RS256", {"kty": "oct", "k": "c2VjcmV0", "kid": "bad"}),
    "another curve": ("ES256", public_jwk("ES256", "bad", crv="P-384")),
    "Ed448": ("EdDSA", public_jwk("EdDSA", "bad", crv="Ed448")),
    "a point off the curve": ("ES256", public_jwk("ES256", "bad", x=part(b"\1" * 32))),
    "a number that is none": ("RS256", public_jwk("RS256", "bad", n=7)),
    "no number": ("RS256", {"kty": "RSA", "kid": "bad"}),
    "a private key": ("RS256", private_jwk("RS256", "bad")),
    "a kid that is no text": ("RS256", public_jwk("RS256", "bad", kid=7)),
    "a kid that is taken": ("RS256", public_jwk("RS256", "other", kid="good")),
    "no object": ("RS256", "key"),
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_a_key_that_cannot_serve_is_ignored_with_a_log_line(
    why: str, caplog: pytest.LogCaptureFixture
) -> None:
    algorithm, bad = UNUSABLE[why]
    good = public_jwk(algorithm, "good")
    keys = parse(json.dumps({"keys": [good, bad]}).encode(), algorithm)
    assert list(keys) == ["good"]
    assert keys["good"].key == private_key(algorithm, "good").public_key()
    assert len(caplog.records) == 1
    if why != "a kid that is taken":
        with pytest.raises(ValueError, match=f"no key for {algorithm}"):
            parse(json.dumps({"keys": [bad]}).encode(), algorithm)


# -- robot API keys


async def test_a_mistyped_key_is_refused_without_a_look_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []
    monkeypatch.setattr(
        "api.key_ring.digest_of", lambda secret: looked_up.append(secret) or digest_of(secret)
    )
    good = key_secret(b"\7" * 32)
    assert not await opened(world, good[:-1] + ("x" if good[-1] != "x" else "y"))
    assert looked_up == []
    assert not await opened(world, good)
    assert looked_up == [good]


@pytest.mark.parametrize("path", [*STREAMS, "robot/r-1"])
async def test_a_revocation_closes_the_sockets_of_every_door(world: World, path: str) -> None:
    async with served(world.fleet) as other, world.http() as http:
        key = (await http.post("/robot-api-keys", json={"robot_id": "r-1"})).json()
        while not await opened(other, key["api_key"]):
            pass
        async with world.open(path, key["api_key"]) as here, other.open(path, key["api_key"]) as there:
            if path != "robot/r-1":  # the second of one robot takes over by itself
                await here.send("ping")
            await there.send("ping")
            await there.recv()
            await http.post(f"/robot-api-keys/{key['key_id']}/revoke")
            assert await end_of(there) == (4001, "key revoked")
            assert (await end_of(here))[0] in (4001, 4409)
        assert not await opened(other, key["api_key"])


async def test_dev_mode_admits_no_wrong_token_of_an_issuer_either() -> None:
    async with issuing() as issuer, trusting(issuer, jwt_dev_mode=True) as world:
        async with world.open("live-jobs", None) as socket:
            await socket.send("ping")
            assert await socket.recv() == "pong"
        assert not await opened(world, issuer.token("two"))
        assert await opened(world, issuer.token())
