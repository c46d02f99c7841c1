"""The three stores, so that one test holds all of them to the same behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stores.kept import Kept, tables_of

LASTING = ["sqlite", pytest.param("postgres", marks=pytest.mark.system)]


def url_of(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind == "postgres":
        return str(request.getfixturevalue("postgres").new_database())
    return "memory:" if kind == "memory" else f"sqlite:{tmp_path}"


@pytest.fixture(params=["memory", *LASTING])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where it is, as `--store` names it."""
    return url_of(request.param, tmp_path, request)


@pytest.fixture(params=LASTING)
def lasting(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One that outlives the process."""
    return url_of(request.param, tmp_path, request)


@pytest.fixture
def kept(store: str) -> Iterator[Kept]:
    kept = Kept(lambda: tables_of(store))
    yield kept
    kept.close()


@pytest.fixture
def lasting_kept(lasting: str) -> Iterator[Kept]:
    kept = Kept(lambda: tables_of(lasting))
    yield kept
    kept.close()
