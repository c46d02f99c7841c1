"""What the environment may not say: found before anything starts, in one line that names the variable."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issuer import private_key

from api.settings import load
from fleet.errors import Misuse

SECRET = "a secret of this test, thirty-two bytes or more"
PEM = private_key("ES256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
URL = "https://issuer.example/keys"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JWT_SECRET_KEY", "JWT_DEV_MODE", "JWT_ALGORITHM", "JWT_JWKS_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"JWT_ALGORITHM": "RS256"}, "JWT_ALGORITHM=RS256 needs JWT_JWKS_URL"),
        ({"JWT_ALGORITHM": "RS256", "JWT_DEV_MODE": "true"}, "needs JWT_JWKS_URL"),
        ({"JWT_ALGORITHM": "RS512", "JWT_JWKS_URL": URL}, "JWT_ALGORITHM: "),
        ({"JWT_ALGORITHM": "none"}, "JWT_ALGORITHM: "),
        ({"JWT_ALGORITHM": "ES256", "JWT_JWKS_URL": URL, "JWT_SECRET_KEY": SECRET}, "unset one of them"),
        ({"JWT_JWKS_URL": URL, "JWT_SECRET_KEY": SECRET}, "JWT_ALGORITHM is HS256"),
        ({"JWT_JWKS_URL": URL, "JWT_DEV_MODE": "true"}, "JWT_ALGORITHM is HS256"),
        ({"JWT_SECRET_KEY": PEM}, "holds a public or private key"),
        ({"JWT_SECRET_KEY": SECRET, "JWT_AUDIENCE": ""}, "JWT_AUDIENCE: "),
        ({"JWT_SECRET_KEY": SECRET, "JWT_AUDIANCE": "us"}, "did you mean JWT_AUDIENCE?"),
        ({"JWT_SECRET_KEY": SECRET, "FLEETCAST_ALLOWED_ORIGINS": "x"}, "FLEETCAST_ALLOWED_ORIGINS: "),
        ({"JWT_SECRET_KEY": SECRET, "FLEETCAST_ALLOWED_ORIGINS": "[1]"}, "FLEETCAST_ALLOWED_ORIGINS.0: "),
        ({"JWT_SECRET_KEY": SECRET, "FLEETCAST_TRUSTED_PROXIES": "10.0.0.1"}, "FLEETCAST_TRUSTED_PROXIES: "),
        ({"JWT_SECRET_KEY": SECRET, "FLEETCAST_TRUSTED_PROXIES": '["*"]'}, "FLEETCAST_TRUSTED_PROXIES: "),
        ({"JWT_SECRET_KEY": SECRET, "FLEETCAST_TRUSTED_PROXIES": '["10.0.0.0/33"]'}, "FLEETCAST_TRUSTED_"),
        ({"JWT_SECRET_KEY": SECRET, "FLEETCAST_BODY_TIMEOUT_S": "inf"}, "FLEETCAST_BODY_TIMEOUT_S: "),
        ({"JWT_SECRET_KEY": SECRET, "FLEETCAST_LIMITS": "{"}, "FLEETCAST_LIMITS: "),
        ({"JWT_SECRET_KEY": SECRET, "FLEETCAST_PORT": "x"}, "FLEETCAST_PORT: "),
    ],
)
def test_a_contradiction_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Misuse) as refused:
        load()
    assert says in refused.value.detail
    assert "\n" not in refused.value.detail
    assert SECRET not in refused.value.detail


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/keys",
        "http://127.0.0.1.example/keys",
        "http://localhost@issuer.example/keys",
        "https://user:password@issuer.example/keys",
        "https://issuer.example:port/keys",
        "https://issuer.example/keys#1",
        "https://issuer.example/k eys",
        "https:///keys",
        "file:///etc/keys",
        "ftp://127.0.0.1/keys",
        "issuer.example/keys",
        "//issuer.example/keys",
        "https://[::1/keys",
    ],
)
def test_keys_come_by_https_or_from_this_machine_only(url: str) -> None:
    with pytest.raises(Misuse, match="JWT_JWKS_URL must be https") as refused:
        load(jwt_algorithm="RS256", jwt_jwks_url=url)
    assert "password@" not in refused.value.detail


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:9/keys", "http://[::1]/keys", "http://localhost/k"])
def test_keys_may_come_by_https_or_from_this_machine(url: str) -> None:
    assert load(jwt_algorithm="RS256", jwt_jwks_url=url).jwt_jwks_url == url


def test_a_value_of_the_command_line_is_named_by_its_option_too() -> None:
    with pytest.raises(Misuse, match=r"FLEETCAST_PORT \(--port\): "):
        load(jwt_secret_key=SECRET, port=70_000)
    assert load(jwt_secret_key=SECRET).allowed_origins == []


def test_lists_and_objects_of_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETCAST_ALLOWED_ORIGINS", '["https://a.example"]')
    monkeypatch.setenv("FLEETCAST_LIMITS", '{"max_keys": 7}')
    settings = load(jwt_secret_key=SECRET)
    assert (settings.allowed_origins, settings.limits().max_keys) == (["https://a.example"], 7)
