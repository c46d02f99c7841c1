"""Columns of a bulk statement arrive as they were sent."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from postgres import Postgres

from actors.database import Kind
from actors.postgres_arrays import columns_of, register

pytestmark = pytest.mark.system

ROWS: list[tuple[Any, ...]] = [
    (-(2**63), "", b""),
    (2**63 - 1, 'ein "Wort", {zwei}, \\drei', bytes(range(256))),
    (0, "роботы 🤖", b"\\x00"),
]


def returned(postgres: Postgres, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    kinds: list[Kind] = ["int", "text", "bytes"]
    with psycopg.connect(postgres.dsn()) as connection:
        register(connection)
        sent = columns_of(kinds, rows)
        return connection.execute("SELECT * FROM unnest(%s, %s, %s)", sent).fetchall()


def test_what_is_hard_to_write_as_text_comes_back_the_same(postgres: Postgres) -> None:
    assert returned(postgres, ROWS) == ROWS


def test_nothing_stays_nothing_in_every_column(postgres: Postgres) -> None:
    holes: list[tuple[Any, ...]] = [(None, "a", b"b"), (1, None, b"b"), (1, "a", None)]
    assert returned(postgres, holes) == holes
