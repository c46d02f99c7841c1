"""A PostgreSQL server of our own, for tests and benchmarks: in a temporary folder, on a free port, and gone
at the end. It waits for the disk, as a careful operator's does, and all else is as PostgreSQL ships it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psycopg
from processes import free_port

USERS = ("postgres", "nobody")  # in place of root, as whom PostgreSQL does not run
PATIENCE_S = 60.0
STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
# Does what is left to do when we end without doing it: its input ends with us.
_HEIR = """
cat
pid=$(head -n 1 data/postmaster.pid 2> /dev/null) && kill -QUIT "$pid"
while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
rm -rf "$PWD"
"""
SETTINGS = {"listen_addresses": "127.0.0.1", "fsync": "on", "synchronous_commit": "on"}


class PostgresFailed(Exception):
    """There is no server, or none that starts; the text says what to do or what it said."""


class Postgres:
    """`psycopg.connect(postgres.new_database())`. The methods wait until what they say is so."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._programs = programs
        self._password = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._initialise()

    def dsn(self, database: str = "postgres", socket: bool = False) -> str:
        """With a password. Over TCP, or over the Unix socket."""
        user = f"postgres:{self._password}"
        if socket:
            return f"postgresql://{user}@/{database}?host={self._folder}&port={self.port}"
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self, socket: bool = False) -> str:
        """The DSN of an empty one, which goes with the server."""
        name = f"d{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name}")
        return self.dsn(name, socket)

    def start(self) -> None:
        """Raises PostgresFailed with the end of the server's log."""
        options = {"port": self.port, "unix_socket_directories": self._folder, **SETTINGS}
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data")]
        command += [f"--{name}={value}" for name, value in options.items()]
        with (self._folder / "log").open("ab") as log:
            # In a session of its own: Ctrl-C is for us, who then stop it.
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, **_as_whom(self._folder)
            )
        self._process = process
        self._wait_ready(process)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """ "immediate" is a crash: the next start recovers. Twice is once."""
        if self._process is None:
            return
        self._process.send_signal(STOP[mode])
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill_backends(self, dsn: str) -> int:
        """Ends every connection to that database; returns how many there were."""
        database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        ended = self._execute(
            "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()",
            (int(PATIENCE_S * 1_000), database),
        )
        return len(ended)

    def _execute(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def _initialise(self) -> None:
        secret = self._folder / "password"
        secret.write_text(self._password)
        options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        options += ["--locale=C", "--encoding=UTF8", "-D", str(self._folder / "data")]
        made = subprocess.run(
            [self._programs / "initdb", *options], capture_output=True, text=True, **_as_whom(self._folder)
        )
        if made.returncode:
            raise PostgresFailed(f"initdb failed: {made.stderr.strip()}")

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return psycopg.connect(self.dsn()).close()
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > deadline_s:
                    log = (self._folder / "log").read_text()
                    raise PostgresFailed(f"PostgreSQL did not start: {log[-2_000:]}") from None
            time.sleep(0.02)


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Started; stopped and removed at the end, whatever happened. Raises PostgresFailed."""
    programs = find_programs(_folders_of_programs())
    # Not in TMPDIR, which may be closed to the other user, or too long for the name of a socket (107 bytes).
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    server = None
    if os.getuid() == 0:
        shutil.chown(folder, _other_user().pw_uid, _other_user().pw_gid)
    heir = subprocess.Popen(
        ["sh", "-c", _HEIR], stdin=subprocess.PIPE, start_new_session=True, **_as_whom(folder)
    )
    try:
        server = Postgres(folder, programs)
        server.start()
        yield server
    finally:
        heir.kill()
        heir.communicate()
        if server is not None:
            server.stop("immediate")
        shutil.rmtree(folder)


def find_programs(folders: Iterable[Path]) -> Path:
    """The first that has the programs of a server: the client's package has a `pg_config` too."""
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise PostgresFailed(
        "no PostgreSQL server is installed (Debian: apt install postgresql), "
        "or its initdb and postgres are not on PATH"
    )


def _folders_of_programs() -> Iterator[Path]:
    if asked := shutil.which("pg_config"):
        yield Path(subprocess.run([asked, "--bindir"], capture_output=True, text=True).stdout.strip())
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent
    yield from sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True
    )


def _other_user() -> pwd.struct_passwd:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in USERS if name in known)


def _as_whom(folder: Path) -> dict[str, Any]:
    """Arguments of a process: PostgreSQL's user and folder, and none of the PG* variables of ours."""
    common = {"cwd": folder, "env": {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}}
    if os.getuid() != 0:
        return common
    other = _other_user()
    return {**common, "user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
