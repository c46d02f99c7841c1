"""What the environment decides. Checked whole before anything starts."""

from __future__ import annotations

import difflib
import ipaddress
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleet.errors import Misuse
from fleet.limits import Limits

MIN_SECRET_BYTES = 32
OF_CLIENTS = {"FLEETCAST_URL", "FLEETCAST_TOKEN"}


class Settings(BaseSettings):
    """Names in capitals are the environment variables; FLEETCAST_LIMITS is a JSON object with fields of
    `fleet.limits.Limits`."""

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore")

    host: str = Field("127.0.0.1", alias="FLEETCAST_HOST")
    port: int = Field(8000, alias="FLEETCAST_PORT", ge=0, le=65_535)
    namespace: str = Field("fleetcast", alias="FLEETCAST_NAMESPACE", min_length=1)
    data_dir: Path | None = Field(None, alias="FLEETCAST_DATA_DIR")
    jwt_secret_key: SecretStr | None = Field(None, alias="JWT_SECRET_KEY")
    jwt_dev_mode: bool = Field(False, alias="JWT_DEV_MODE")
    jwt_issuer: str | None = Field(None, alias="JWT_ISSUER")
    jwt_audience: str | None = Field(None, alias="JWT_AUDIENCE")
    jwt_leeway_s: float = Field(0.0, alias="JWT_LEEWAY_SECONDS", ge=0, le=300)
    allowed_origins: list[str] = Field([], alias="FLEETCAST_ALLOWED_ORIGINS")
    ping_interval_s: float = Field(20.0, alias="FLEETCAST_PING_INTERVAL_S", gt=0)
    ping_timeout_s: float = Field(10.0, alias="FLEETCAST_PING_TIMEOUT_S", gt=0)
    send_timeout_s: float = Field(1.0, alias="FLEETCAST_SEND_TIMEOUT_S", gt=0)
    max_messages_per_s: float = Field(30.0, alias="FLEETCAST_MAX_MESSAGES_PER_S", gt=0)
    inbound_patience_s: float = Field(3.0, alias="FLEETCAST_INBOUND_PATIENCE_S", gt=0)
    max_sockets: int = Field(20_000, alias="FLEETCAST_MAX_SOCKETS", ge=1)
    max_sockets_per_principal: int = Field(100, alias="FLEETCAST_MAX_SOCKETS_PER_PRINCIPAL", ge=1)
    max_sockets_per_address: int = Field(2_000, alias="FLEETCAST_MAX_SOCKETS_PER_ADDRESS", ge=1)
    max_handshakes_per_s: float = Field(200.0, alias="FLEETCAST_MAX_HANDSHAKES_PER_S", gt=0)
    trusted_proxies: list[str] = Field([], alias="FLEETCAST_TRUSTED_PROXIES")
    limit_loopback: bool = Field(False, alias="FLEETCAST_LIMIT_LOOPBACK")
    headers_timeout_s: float = Field(10.0, alias="FLEETCAST_HEADERS_TIMEOUT_S", gt=0)
    flush_interval_s: float = Field(0.01, alias="FLEETCAST_FLUSH_INTERVAL_S", ge=0)
    limits_json: dict[str, Any] = Field({}, alias="FLEETCAST_LIMITS")

    def limits(self) -> Limits:
        return msgspec.convert(self.limits_json, Limits)

    def secret(self) -> str:
        return self.jwt_secret_key.get_secret_value() if self.jwt_secret_key else ""


def load(**overrides: Any) -> Settings:
    """Raises Misuse with one line that says what to do; the line never holds a secret."""
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})
        settings.limits()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise Misuse(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (msgspec.ValidationError, Misuse) as error:
        raise Misuse(f"FLEETCAST_LIMITS: {error}") from None
    except Exception as error:
        raise Misuse(f"the settings cannot be read: {str(error).splitlines()[0]}") from None
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    unknown = set(settings.limits_json) - set(Limits.__struct_fields__)
    if unknown:
        raise Misuse(f"FLEETCAST_LIMITS: unknown name {sorted(unknown)[0]!r}")
    _check_names()
    if settings.jwt_dev_mode and not is_loopback(settings.host):
        raise Misuse(
            f"JWT_DEV_MODE=true lets everybody in and is refused on {settings.host}: "
            "bind to 127.0.0.1, or unset it and set JWT_SECRET_KEY"
        )
    secret = settings.secret()
    if secret and len(secret.encode()) < MIN_SECRET_BYTES:
        raise Misuse(f"JWT_SECRET_KEY must have at least {MIN_SECRET_BYTES} bytes, it has {len(secret)}")
    if not secret and not settings.jwt_dev_mode:
        raise Misuse(
            "set JWT_SECRET_KEY to at least 32 random bytes (such as: openssl rand -hex 32), "
            "or JWT_DEV_MODE=true to let this machine in without tokens"
        )


def _check_names() -> None:
    """A mistyped variable must not be ignored in silence."""
    known = {str(field.alias) for field in Settings.model_fields.values()} | OF_CLIENTS
    unknown = sorted(name for name in os.environ if name.startswith("FLEETCAST_") and name not in known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise Misuse(f"{unknown[0]} is no setting of fleetcast{hint}")


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
