"""The PostgreSQL that tests and benchmarks start themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from postgres import Postgres, PostgresFailed, find_programs, postgres_server
from psycopg.conninfo import conninfo_to_dict

pytestmark = pytest.mark.system
BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


def shown(dsn: str, setting: str) -> str:
    with psycopg.connect(dsn) as connection:
        return str(connection.execute(f"SHOW {setting}").fetchall()[0][0])


@pytest.mark.parametrize("socket", [False, True])
def test_a_database_waits_for_the_disk_and_sorts_by_bytes(postgres: Postgres, socket: bool) -> None:
    dsn = postgres.new_database(socket)
    assert {shown(dsn, name) for name in ("fsync", "synchronous_commit", "full_page_writes")} == {"on"}
    assert (shown(dsn, "lc_collate"), shown(dsn, "server_encoding")) == ("C", "UTF8")


def test_what_was_committed_outlives_a_crash(postgres: Postgres) -> None:
    dsn = postgres.new_database()
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    postgres.restart("immediate")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(7,)]


def test_a_stopped_server_answers_nobody_until_it_starts(postgres: Postgres) -> None:
    dsn = postgres.new_database()
    postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)
    postgres.start()
    psycopg.connect(dsn).close()


def test_the_connections_of_one_database_end_and_no_others(postgres: Postgres) -> None:
    one, other = postgres.new_database(), postgres.new_database()
    with psycopg.connect(other) as spared:
        killed = psycopg.connect(one)
        assert postgres.kill_backends(one) == 1
        with pytest.raises(psycopg.OperationalError):
            killed.execute("SELECT 1")
        assert spared.execute("SELECT 1").fetchone() == (1,)


def test_a_server_leaves_nothing_behind_though_its_user_failed() -> None:
    with pytest.raises(PostgresFailed, match="on purpose"), postgres_server() as server:
        raise PostgresFailed("on purpose")
    assert not Path(str(conninfo_to_dict(server.dsn(socket=True))["host"])).exists()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(server.dsn())


def test_a_server_goes_with_a_process_that_was_killed() -> None:
    program = """
import os, signal
from postgres import postgres_server
with postgres_server() as server:
    print(server.dsn(socket=True), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    # The output ends when those who might write to it have ended.
    killed = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": BENCHMARKS}, stdout=subprocess.PIPE
    )
    assert killed.returncode == -signal.SIGKILL
    assert not Path(str(conninfo_to_dict(killed.stdout.decode().strip())["host"])).exists()


def test_a_client_without_the_password_is_refused(postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host="127.0.0.1", port=postgres.port, user="postgres", password="wrong")


def test_a_machine_without_the_programs_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(PostgresFailed, match="apt install postgresql"):
        find_programs([tmp_path])
