"""Who is asking, and what they may do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jwt
import msgspec

from api.settings import Settings
from fleet.errors import FleetError, Forbidden
from fleet.keys import PREFIX, KeyRecord

ROLES = {"viewer": 1, "operator": 2, "admin": 3}
MISSING = "Authentication required"
INVALID = "Invalid authentication token"


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


class Authenticator:
    """HS256 with one secret, or a robot's key. The algorithm is pinned here; a token cannot choose it."""

    def __init__(self, settings: Settings, find_key: Callable[[str], KeyRecord | None]) -> None:
        self._settings = settings
        self._find_key = find_key
        self._secret = settings.secret()
        self._options: dict[str, Any] = {
            "require": ["exp", "iat", "sub"],
            "verify_aud": settings.jwt_audience is not None,
        }

    def principal(self, token: str | None) -> Principal:
        """Raises Unauthenticated. Dev mode lets a missing token in, never a wrong one."""
        if not token:
            if self._settings.jwt_dev_mode:
                return Principal("anonymous", ROLES["admin"])
            raise Unauthenticated(MISSING)
        if token.startswith(PREFIX):
            return self._robot(token)
        if not self._secret:
            raise Unauthenticated(INVALID)
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                audience=self._settings.jwt_audience,
                issuer=self._settings.jwt_issuer,
                leeway=self._settings.jwt_leeway_s,
                options=self._options,  # type: ignore[arg-type]
            )
        except (jwt.PyJWTError, ValueError, UnicodeError):
            raise Unauthenticated(INVALID) from None
        return self._principal(claims)

    def _robot(self, secret: str) -> Principal:
        record = self._find_key(secret)
        if record is None:
            raise Unauthenticated(INVALID)
        key = record.key
        return Principal(f"robot {key.robot_id}", ROLES["viewer"], record.expires_s, key.robot_id, key.key_id)

    def _principal(self, claims: dict[str, Any]) -> Principal:
        roles = claims.get("roles")
        known = [ROLES[role] for role in roles if role in ROLES] if isinstance(roles, list) else []
        if claims.get("type") != "access" or not known:
            raise Unauthenticated(INVALID)
        expires = float(claims["exp"]) + self._settings.jwt_leeway_s
        return Principal(str(claims["sub"]), max(known), expires)


def mint(secret: str, subject: str, role: str, ttl_s: float, now_s: float, **claims: Any) -> str:
    """A token for `subject`, good for `ttl_s` seconds from `now_s` (since 1970), rounded up to the second."""
    times = {"iat": math.floor(now_s), "exp": math.ceil(now_s + ttl_s)}
    body = {"sub": subject, "roles": [role], "type": "access"} | times
    return jwt.encode(body | claims, secret, algorithm="HS256")
