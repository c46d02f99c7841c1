"""PostgreSQL that restarts, loses connections, or has none left: each transaction is made once."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Literal

import psycopg
import pytest
from postgres import Postgres
from stores.commit_proxy import CommitProxy
from stores.kept import FLEET, LIMITS, Kept, pages, tables_of

from actors import stores
from actors.database import StoreRefused, StoreUnreachable
from actors.memory_tables import MemoryJobTables
from actors.postgres import PostgresDatabase
from actors.writer import LostWriter
from fleet.errors import Unavailable

pytestmark = pytest.mark.system


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[CommitProxy]:
    proxy = CommitProxy(postgres.port)
    yield proxy
    proxy.close()


@pytest.fixture
def store(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
def kept(store: str, postgres: Postgres, proxy: CommitProxy) -> Iterator[Kept]:
    """By way of the proxy."""
    kept = Kept(lambda: tables_of(store.replace(f":{postgres.port}/", f":{proxy.port}/")))
    kept.submit(2)
    yield kept
    kept.close()


def commits(store: str) -> int:
    with psycopg.connect(store) as connection:
        return int(connection.execute("SELECT commits FROM fleetcast_writers").fetchall()[0][0])


def assert_made_once(kept: Kept, store: str) -> None:
    """All that was decided is there, and nothing twice."""
    model = MemoryJobTables(LIMITS)
    model.write(kept.written)
    assert pages(kept.tables) == pages(model)
    for job in pages(model):
        assert kept.tables.history(job.job_id) == model.history(job.job_id)


@pytest.mark.parametrize("lose", ["request", "answer", "rest"])
def test_a_commit_whose_answer_is_lost_is_made_once(
    kept: Kept, store: str, proxy: CommitProxy, lose: Literal["request", "answer", "rest"]
) -> None:
    before = commits(store)
    proxy.lose = lose
    kept.submit(3)
    assert proxy.lost == 1
    assert commits(store) == before + 1
    kept.finish()
    assert_made_once(kept, store)


def test_commits_may_be_lost_again_and_again(kept: Kept, store: str, proxy: CommitProxy) -> None:
    for lose in ("answer", "request", "rest", "answer", "answer", "rest", "request"):
        proxy.lose = lose  # type: ignore[assignment]
        kept.finish()
    assert proxy.lost == 7
    assert_made_once(kept, store)


def test_retention_whose_commit_is_lost_tells_how_many_it_deleted(
    kept: Kept, store: str, proxy: CommitProxy
) -> None:
    kept.finish(2)
    kept.passes(LIMITS.retention_s + 1)
    proxy.lose = "answer"
    assert kept.tables.clean(kept.wall_ns) == 2
    assert kept.tables.clean(kept.wall_ns) == 0


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_server_that_restarts_costs_nothing(
    kept: Kept, store: str, postgres: Postgres, mode: Literal["immediate", "fast"]
) -> None:
    postgres.restart(mode)
    kept.finish(3)
    assert_made_once(kept, store)


def test_a_connection_that_is_ended_by_the_server_is_made_anew(
    kept: Kept, store: str, postgres: Postgres
) -> None:
    for _ in range(3):
        assert postgres.kill_backends(store)
        kept.finish()
        postgres.kill_backends(store)
        assert kept.jobs()  # the one that reads, too
    assert_made_once(kept, store)


def test_a_server_that_stays_away_is_given_up_and_nothing_is_made_up(
    kept: Kept, store: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.writer.RECONNECT_S", 0.3)
    before = commits(store)
    postgres.stop()
    with pytest.raises(StoreUnreachable, match=r"does not answer \(.*\): is it running"):
        kept.submit()
    with pytest.raises(StoreUnreachable):
        kept.tables.page(None, 0, 1)
    postgres.start()
    assert commits(store) == before


def test_a_store_that_lost_commits_by_a_failover_ends_its_writer(
    kept: Kept, store: str, postgres: Postgres
) -> None:
    """As a replica that had not got the newest would have it."""
    kept.submit()
    postgres.kill_backends(store)
    with psycopg.connect(store, autocommit=True) as connection:
        connection.execute("UPDATE fleetcast_writers SET commits = commits - 1")
    with pytest.raises((LostWriter, StoreRefused)):
        kept.submit()


# -- no connection is left


class AllConnections:
    """Of a server; `take` those that became free."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._held: list[psycopg.Connection[tuple[object, ...]]] = []

    def __enter__(self) -> AllConnections:
        self.take()
        return self

    def take(self) -> None:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                self._held.append(psycopg.connect(self._store, autocommit=True))

    def execute(self, sql: str) -> None:
        self._held[0].execute(sql)

    def __exit__(self, *_: object) -> None:
        for one in self._held:
            one.close()


def test_a_server_without_a_free_connection_says_so(store: str) -> None:
    with AllConnections(store), pytest.raises(StoreUnreachable, match="too many clients"):
        tables_of(store).open(0)
    tables = tables_of(store)
    tables.open(0)
    tables.close()


def test_a_writer_that_lost_its_connection_waits_for_a_free_one(kept: Kept, store: str) -> None:
    with AllConnections(store) as held:
        held.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE application_name = 'fleetcast'"
        )
        held.take()
        submitting = threading.Thread(target=kept.submit, args=(3,))
        submitting.start()
        submitting.join(1)
        assert submitting.is_alive()
    submitting.join(20)
    assert not submitting.is_alive()
    assert_made_once(kept, store)


# -- transactions that are large


def test_a_transaction_of_many_bytes_is_several_statements(
    kept: Kept, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a connection that sends it a gigabyte at once."""
    monkeypatch.setattr("actors.postgres.STATEMENT_BYTES", 5_000)
    before = commits(store)
    for size in (10, 1_000, 6_000):
        kept.submit(30, payload={"x": "y" * size})
    assert commits(store) == before + 3
    assert_made_once(kept, store)


# -- a server that was set up with others in mind


def alter(store: str, *sql: str) -> None:
    with psycopg.connect(store, autocommit=True) as connection:
        for each in sql:
            connection.execute(each)


def test_what_a_database_sets_for_others_does_not_bind_us(store: str) -> None:
    name = store.rpartition("/")[2]
    for setting in ("statement_timeout = '1ms'", "lock_timeout = '1ms'"):
        alter(store, f"ALTER DATABASE {name} SET {setting}")
    alter(store, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    kept = Kept(lambda: tables_of(store))
    with psycopg.connect(store, options="-c statement_timeout=0") as locking:
        locking.execute("LOCK TABLE fleetcast_jobs IN SHARE MODE")
        submitting = threading.Thread(target=kept.submit, args=(200,))
        submitting.start()
        submitting.join(0.1)
        assert submitting.is_alive()
    submitting.join(20)
    assert len(kept.jobs()) == 200
    kept.close()


def test_options_of_the_url_hold(store: str) -> None:
    alter(store, "CREATE SCHEMA mine")
    kept = Kept(lambda: tables_of(store + "?options=-csearch_path%3Dmine"))
    kept.submit()
    kept.close()
    with psycopg.connect(store) as connection:
        assert connection.execute("SELECT count(*) FROM mine.fleetcast_jobs").fetchall() == [(1,)]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_may_have_any_encoding(store: str, encoding: str) -> None:
    name = f"{store.rpartition('/')[2]}_{encoding}".lower()
    alter(store, f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    kept = Kept(lambda: tables_of(store.rpartition("/")[0] + "/" + name))
    kept.submit(payload={"what": "\u4e16\0"})
    before = kept.everything()
    kept.reopen()
    assert kept.everything() == before
    kept.close()


@pytest.mark.parametrize("code", ["53100", "53200", "57014", "57P03", "58030", "40001", "25006"])
def test_a_server_that_cannot_now_is_waited_for(kept: Kept, store: str, code: str) -> None:
    """A full disk, no memory, a failing disk, a standby: what an opening must not take for damage."""
    alter(
        store,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'cannot now' USING ERRCODE = '{code}'; END $$",
        "CREATE TRIGGER refusing BEFORE INSERT ON fleetcast_writers EXECUTE FUNCTION refuse()",
    )
    kept.close()
    with pytest.raises(StoreUnreachable, match="cannot now"):
        tables_of(store).open(0)
    alter(store, "DROP TRIGGER refusing ON fleetcast_writers")
    kept.open()
    assert len(kept.rest.records) == 2


# -- what is refused


def wrong(change: Callable[[str], str], store: str) -> str:
    with pytest.raises((Unavailable, StoreRefused)) as refused:
        stores.check(change(store), FLEET, LIMITS)
    text = str(refused.value)
    assert "\n" not in text
    assert store.split(":")[2].split("@")[0] not in text, "the password is told"
    return text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda url: url.replace("postgres:", "postgres:x"), "password authentication failed"),
        (lambda url: url + "nowhere", r'database ".*nowhere" does not exist'),
        (lambda url: url.replace("127.0.0.1", "127.0.0.2"), "Connection refused"),
        (lambda url: url.replace("@127", "@nobody.invalid,127").split(",")[0], "failed to resolve"),
        (lambda url: url + "?sslmode=require", "SSL"),
        (lambda url: url + "?nonsense=1", "URL of the store is none"),
    ],
)
def test_a_wrong_url_is_refused_by_what_is_wrong_with_it(
    store: str, change: Callable[[str], str], text: str
) -> None:
    assert re.search(text, wrong(change, store))


def test_a_user_who_may_not_make_tables_is_refused(store: str, postgres: Postgres) -> None:
    with psycopg.connect(store, autocommit=True) as connection:
        connection.execute("CREATE ROLE visitor LOGIN PASSWORD 'p'")
    mine = store.split("//")[1].split("@")[0]
    assert "permission denied for schema public" in wrong(lambda url: url.replace(mine, "visitor:p"), store)


def test_a_server_that_only_reads_is_waited_for(store: str) -> None:
    with psycopg.connect(store, autocommit=True) as connection:
        connection.execute(
            f"ALTER DATABASE {store.rpartition('/')[2]} SET default_transaction_read_only = on"
        )
    assert "read-only" in wrong(lambda url: url, store)


def test_a_transaction_that_found_no_connection_leaves_nothing_for_the_next_one(
    store: str, postgres: Postgres
) -> None:
    database = PostgresDatabase(store)
    database.connect()
    [(writer,)] = database.query("SELECT pg_backend_pid()")
    with psycopg.connect(store, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (writer,))
    with pytest.raises(StoreUnreachable), database.transaction():
        pass
    database.connect()
    assert database.execute("CREATE TABLE t AS SELECT 1") == 1
    database.close()
