"""Who is asking, and what they may do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jwt
import msgspec
from msgspec import Meta

from api.jwks import KeySet
from api.settings import Settings
from fleet.errors import FleetError, Forbidden, Unavailable
from fleet.keys import PREFIX, KeyRecord

ROLES = {"viewer": 1, "operator": 2, "admin": 3}
MISSING = "Authentication required"
INVALID = "Invalid authentication token"
# Header parameters by which a token would bring its own key.
_OWN_KEY = ("jku", "jwk", "x5u", "x5c")


class Unauthenticated(FleetError):
    """`detail` is the close reason of the reference: MISSING or INVALID."""

    default_code = "unauthenticated"


class Principal(msgspec.Struct, frozen=True):
    """`expires_at` is in seconds since 1970; None never expires."""

    subject: str
    level: int
    expires_at: float | None = None
    robot_id: str | None = None
    key_id: str = ""

    def need(self, role: str) -> None:
        if self.level < ROLES[role]:
            raise Forbidden(f"this needs the role {role}", "role")

    def act_as(self, robot_id: str) -> None:
        """An operator may act as any robot, a robot key as its own."""
        if self.robot_id != robot_id and (self.robot_id is not None or self.level < ROLES["operator"]):
            raise Forbidden(f"this token may not act as robot {robot_id[:64]}", "not_your_robot")


class _Claims(msgspec.Struct):
    """Their types; whether the times are good is PyJWT's to say, which is lenient about types."""

    sub: Annotated[str, Meta(min_length=1)]
    roles: list[Any]
    exp: float
    iat: float
    type: Literal["access"]
    nbf: float | None = None


class Authenticator:
    """A JWT, or a robot's key. The algorithm is pinned here; a token cannot choose it, nor its key's origin.
    `key_set` is None for HS256."""

    def __init__(
        self, settings: Settings, find_key: Callable[[str], KeyRecord | None], key_set: KeySet | None
    ) -> None:
        self._settings = settings
        self._find_key = find_key
        self._key_set = key_set
        self._secret = settings.secret()
        self._options: dict[str, Any] = {
            "require": ["exp", "iat", "sub"],
            "verify_aud": settings.jwt_audience is not None,
        }

    async def prepare(self, token: str | None) -> None:
        """Waits, if need be, until the key of this token is here or cannot be expected. No answer: that is
        for `principal`, which does not wait, so that nothing changes between its look and what is done."""
        if self._key_set is None or not token or token.startswith(PREFIX):
            return
        try:
            kid = self._kid(token)
        except Unauthenticated:
            return
        await self._key_set.learn(kid)

    def principal(self, token: str | None) -> Principal:
        """Raises Unauthenticated, or Unavailable while there are no keys to check a token with. Dev mode
        lets a missing token in, never a wrong one."""
        if not token:
            if self._settings.jwt_dev_mode:
                return Principal("anonymous", ROLES["admin"])
            raise Unauthenticated(MISSING)
        if token.startswith(PREFIX):
            return self._robot(token)
        return self._principal(self._claims(token, self._key(self._kid(token))))

    def _kid(self, token: str) -> str | None:
        """Of a token whose header may be believed so far. Critical extensions are PyJWT's to refuse."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError):
            raise Unauthenticated(INVALID) from None
        if header.get("alg") != self._settings.jwt_algorithm or any(name in header for name in _OWN_KEY):
            raise Unauthenticated(INVALID)
        return header.get("kid")

    def _key(self, kid: str | None) -> jwt.PyJWK | str:
        key = self._key_set.get(kid) if self._key_set is not None else self._secret
        if self._key_set is not None and not self._key_set.ready:
            raise Unavailable("the keys to check tokens with are not here yet", "no_token_keys", 5.0)
        if not key:
            raise Unauthenticated(INVALID)
        return key

    def _claims(self, token: str, key: jwt.PyJWK | str) -> _Claims:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[self._settings.jwt_algorithm],
                audience=self._settings.jwt_audience,
                issuer=self._settings.jwt_issuer,
                leeway=self._settings.jwt_leeway_s,
                options=self._options,  # type: ignore[arg-type]
            )
            return msgspec.convert(claims, _Claims)
        except (jwt.PyJWTError, ValueError):
            raise Unauthenticated(INVALID) from None

    def _robot(self, secret: str) -> Principal:
        record = self._find_key(secret)
        if record is None:
            raise Unauthenticated(INVALID)
        key = record.key
        return Principal(f"robot {key.robot_id}", ROLES["viewer"], record.expires_s, key.robot_id, key.key_id)

    def _principal(self, claims: _Claims) -> Principal:
        known = [ROLES[role] for role in claims.roles if isinstance(role, str) and role in ROLES]
        if not known:
            raise Unauthenticated(INVALID)
        return Principal(claims.sub, max(known), claims.exp + self._settings.jwt_leeway_s)


def mint(secret: str, subject: str, role: str, ttl_s: float, now_s: float, **claims: Any) -> str:
    """A token for `subject`, good for `ttl_s` seconds from `now_s` (since 1970), rounded up to the second."""
    times = {"iat": math.floor(now_s), "exp": math.ceil(now_s + ttl_s)}
    body = {"sub": subject, "roles": [role], "type": "access"} | times
    return jwt.encode(body | claims, secret, algorithm="HS256")
