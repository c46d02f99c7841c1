"""What the environment decides. Checked whole before anything starts."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidKeyError
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fleet.errors import Misuse
from fleet.limits import Limits

MIN_SECRET_BYTES = 32
DATA_DIR = "fleetcast-data"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
OF_CLIENTS = {"FLEETCAST_URL", "FLEETCAST_TOKEN"}


def _from_json(value: Any) -> Any:
    """Here and not by pydantic-settings, whose error names the field and not the variable."""
    try:
        return msgspec.json.decode(value) if isinstance(value, str) else value
    except msgspec.DecodeError as error:
        raise PydanticCustomError("json", "it is not JSON: {why}", {"why": str(error)}) from None


FromJson = BeforeValidator(_from_json)


class Settings(BaseSettings):
    """Names in capitals are the environment variables; FLEETCAST_LIMITS is a JSON object with fields of
    `fleet.limits.Limits`."""

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore", allow_inf_nan=False)

    host: str = Field("127.0.0.1", alias="FLEETCAST_HOST")
    port: int = Field(8000, alias="FLEETCAST_PORT", ge=0, le=65_535)
    namespace: str = Field("fleetcast", alias="FLEETCAST_NAMESPACE", min_length=1)
    data_dir: Path | None = Field(None, alias="FLEETCAST_DATA_DIR")
    store: SecretStr | None = Field(None, alias="FLEETCAST_STORE")
    jwt_secret_key: SecretStr | None = Field(None, alias="JWT_SECRET_KEY")
    jwt_dev_mode: bool = Field(False, alias="JWT_DEV_MODE")
    jwt_algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] = Field("HS256", alias="JWT_ALGORITHM")
    jwt_jwks_url: str | None = Field(None, alias="JWT_JWKS_URL", min_length=1)
    jwt_jwks_refresh_s: float = Field(300.0, alias="JWT_JWKS_REFRESH_SECONDS", ge=1, le=86_400)
    jwt_jwks_window_s: float = Field(10.0, alias="JWT_JWKS_WINDOW_SECONDS", gt=0, le=86_400)
    jwt_jwks_timeout_s: float = Field(3.0, alias="JWT_JWKS_TIMEOUT_SECONDS", gt=0, le=30)
    jwt_issuer: str | None = Field(None, alias="JWT_ISSUER", min_length=1)
    jwt_audience: str | None = Field(None, alias="JWT_AUDIENCE", min_length=1)
    jwt_leeway_s: float = Field(0.0, alias="JWT_LEEWAY_SECONDS", ge=0, le=300)
    allowed_origins: Annotated[list[str], NoDecode, FromJson] = Field([], alias="FLEETCAST_ALLOWED_ORIGINS")
    ping_interval_s: float = Field(20.0, alias="FLEETCAST_PING_INTERVAL_S", gt=0)
    ping_timeout_s: float = Field(10.0, alias="FLEETCAST_PING_TIMEOUT_S", gt=0)
    send_timeout_s: float = Field(1.0, alias="FLEETCAST_SEND_TIMEOUT_S", gt=0)
    max_messages_per_s: float = Field(30.0, alias="FLEETCAST_MAX_MESSAGES_PER_S", gt=0)
    max_gateway_messages_per_s: float = Field(20_000.0, alias="FLEETCAST_MAX_GATEWAY_MESSAGES_PER_S", gt=0)
    max_robot_messages_per_s: float = Field(1_000.0, alias="FLEETCAST_MAX_ROBOT_MESSAGES_PER_S", gt=0)
    inbound_patience_s: float = Field(3.0, alias="FLEETCAST_INBOUND_PATIENCE_S", gt=0)
    max_sockets: int = Field(20_000, alias="FLEETCAST_MAX_SOCKETS", ge=1)
    max_sockets_per_principal: int = Field(100, alias="FLEETCAST_MAX_SOCKETS_PER_PRINCIPAL", ge=1)
    max_sockets_per_address: int = Field(2_000, alias="FLEETCAST_MAX_SOCKETS_PER_ADDRESS", ge=1)
    max_handshakes_per_s: float = Field(200.0, alias="FLEETCAST_MAX_HANDSHAKES_PER_S", gt=0)
    trusted_proxies: Annotated[list[str], NoDecode, FromJson] = Field([], alias="FLEETCAST_TRUSTED_PROXIES")
    limit_loopback: bool = Field(False, alias="FLEETCAST_LIMIT_LOOPBACK")
    headers_timeout_s: float = Field(10.0, alias="FLEETCAST_HEADERS_TIMEOUT_S", gt=0)
    body_timeout_s: float = Field(30.0, alias="FLEETCAST_BODY_TIMEOUT_S", gt=0)
    requests_per_s: float = Field(50.0, alias="FLEETCAST_REQUESTS_PER_S", gt=0)
    requests_burst: int = Field(200, alias="FLEETCAST_REQUESTS_BURST", ge=1)
    failures_per_s: float = Field(5.0, alias="FLEETCAST_FAILURES_PER_S", gt=0)
    failures_burst: int = Field(50, alias="FLEETCAST_FAILURES_BURST", ge=1)
    limit_operators: bool = Field(False, alias="FLEETCAST_LIMIT_OPERATORS")
    flush_interval_s: float = Field(0.01, alias="FLEETCAST_FLUSH_INTERVAL_S", ge=0)
    limits_json: Annotated[dict[str, Any], NoDecode, FromJson] = Field({}, alias="FLEETCAST_LIMITS")

    def folder(self) -> Path | None:
        """Where to write files: what was named, else, without another store, a folder where we are."""
        return self.data_dir or (None if self.store else Path(DATA_DIR))

    def store_url(self) -> str:
        """As `actors.stores` wants it; may hold a password."""
        return (
            self.store.get_secret_value() if self.store else f"sqlite:{(self.folder() or Path()).resolve()}"
        )

    def limits(self) -> Limits:
        return msgspec.convert(self.limits_json, Limits)

    def bounds(self, host: str) -> bool:
        """Whether limits per address hold for `host`: this machine itself is exempt unless told otherwise."""
        return self.limit_loopback or not is_loopback(host)

    def secret(self) -> str:
        return self.jwt_secret_key.get_secret_value() if self.jwt_secret_key else ""


def load(**overrides: Any) -> Settings:
    """Raises Misuse with one line that says what to do; the line never holds a secret."""
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})
        settings.limits()
    except ValidationError as error:
        raise Misuse(_line(error)) from None
    except (msgspec.ValidationError, Misuse) as error:
        raise Misuse(f"FLEETCAST_LIMITS: {error}") from None
    except Exception as error:
        raise Misuse(f"the settings cannot be read: {str(error).splitlines()[0]}") from None
    _check(settings)
    return settings


def _line(error: ValidationError) -> str:
    """Names the variable, also where the value came from an option of the command line."""
    first = error.errors(include_input=False)[0]
    name, *within = map(str, first["loc"])
    field = Settings.model_fields.get(name)
    shown = f"{field.alias} (--{name.replace('_', '-')})" if field is not None else name
    return f"{'.'.join([shown, *within])}: {first['msg']}"


def _check(settings: Settings) -> None:
    unknown = set(settings.limits_json) - set(Limits.__struct_fields__)
    if unknown:
        raise Misuse(f"FLEETCAST_LIMITS: unknown name {sorted(unknown)[0]!r}")
    _check_names()
    for origin in settings.allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            raise Misuse(
                f"FLEETCAST_ALLOWED_ORIGINS: {origin!r} is no origin: write scheme://host or "
                "scheme://host:port in lower case, without a path"
            )
    for proxy in settings.trusted_proxies:
        _check_proxy(proxy)
    if settings.jwt_dev_mode and not is_loopback(settings.host):
        raise Misuse(
            f"JWT_DEV_MODE=true lets everybody in and is refused on {settings.host}: "
            "bind to 127.0.0.1, or unset it and set JWT_SECRET_KEY"
        )
    if settings.store and not settings.store_url().startswith(("postgresql://", "postgres://")):
        raise Misuse(
            "FLEETCAST_STORE (--store) must be postgresql://USER@HOST/DATABASE; files go to --data-dir"
        )
    _check_secret(settings.secret())
    if settings.jwt_algorithm == "HS256":
        _check_symmetric(settings)
    else:
        _check_asymmetric(settings)


def _check_proxy(proxy: str) -> None:
    """Not `*` either: then every client could say that it is another, or this machine."""
    try:
        ipaddress.ip_network(proxy)
    except ValueError:
        raise Misuse(
            f"FLEETCAST_TRUSTED_PROXIES: {proxy!r} is no address and no network such as 10.0.0.0/8"
        ) from None


def _check_symmetric(settings: Settings) -> None:
    if settings.jwt_jwks_url:
        raise Misuse(
            "JWT_JWKS_URL is set and JWT_ALGORITHM is HS256, which has no public keys: "
            "set JWT_ALGORITHM to RS256, ES256 or EdDSA, or unset JWT_JWKS_URL"
        )
    if not settings.secret() and not settings.jwt_dev_mode:
        raise Misuse(
            "set JWT_SECRET_KEY to at least 32 random bytes (such as: openssl rand -hex 32), "
            "or JWT_DEV_MODE=true to let this machine in without tokens"
        )


def _check_secret(secret: str) -> None:
    """A public key as a secret would let everybody sign who can read it."""
    if secret and len(secret.encode()) < MIN_SECRET_BYTES:
        raise Misuse(f"JWT_SECRET_KEY must have at least {MIN_SECRET_BYTES} bytes, it has {len(secret)}")
    try:
        if secret:
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except InvalidKeyError:
        raise Misuse(
            "JWT_SECRET_KEY holds a public or private key: set it to random bytes, "
            "or use JWT_ALGORITHM=RS256 with JWT_JWKS_URL"
        ) from None


def _check_asymmetric(settings: Settings) -> None:
    name = f"JWT_ALGORITHM={settings.jwt_algorithm}"
    if settings.secret():
        raise Misuse(f"{name} has no use for JWT_SECRET_KEY: unset one of them")
    if not settings.jwt_jwks_url:
        raise Misuse(f"{name} needs JWT_JWKS_URL, where the issuer of the tokens shows its public keys")
    if not _is_safe_url(settings.jwt_jwks_url):
        raise Misuse(
            "JWT_JWKS_URL must be https://, or http:// on loopback, without user name, password and fragment"
        )


def _is_safe_url(url: str) -> bool:
    """Whoever can change what comes from there can sign tokens."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host or ""))
    plain = url.isascii() and url.isprintable() and " " not in url and "@" not in parts.netloc
    return safe and plain and bool(host) and port != 0 and not parts.fragment


def _check_names() -> None:
    """A mistyped variable must not be ignored in silence."""
    known = {str(field.alias) for field in Settings.model_fields.values()} | OF_CLIENTS
    unknown = sorted(name for name in os.environ if name not in known and _is_meant_for_us(name, known))
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise Misuse(f"{unknown[0]} is no setting of fleetcast{hint}")


def _is_meant_for_us(name: str, known: set[str]) -> bool:
    """Names that begin with JWT_ are others' too, but one that is nearly ours is a check left out."""
    near = name.startswith("JWT_") and difflib.get_close_matches(name, known, 1, cutoff=0.9)
    return name.startswith("FLEETCAST_") or bool(near)


def check_folder(folder: Path) -> None:
    """Makes it if need be. Raises Misuse unless it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Misuse(f"--data-dir {folder} cannot be written to: {error.strerror}") from None


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
