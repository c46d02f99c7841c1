"""`fleetcast serve` as a user runs it: real Ray, real sockets, simulated robots."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "a secret of this test, thirty-two bytes or more"


def processes_of(group: int) -> list[str]:
    """Command lines of what still runs in the session that `group` leads."""
    listed = subprocess.run(["ps", "-eo", "sid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_shows_jobs_in_order_and_a_signal_leaves_nothing_behind(number: signal.Signals) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "examples" / "demo.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
    assert demo.stdout is not None
    lives, servers = [], []
    for line in demo.stdout:
        if ">" in line:
            lives.append(re.sub(r"^ +\S+ +", "", line.strip()))
            servers = servers or children(demo.pid)
        if len(lives) == 5:
            break
    demo.send_signal(number)
    rest = demo.stdout.read()
    assert demo.wait(60) == 0, rest
    assert servers
    assert all(life.endswith("pending > claimed > running > completed") for life in lives), lives
    assert "0 out of order" in rest
    assert [line for pid in servers for line in processes_of(pid)] == []


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listed.stdout.split()]


def fleetcast(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JWT_", "FLEETCAST_"))}
    return subprocess.run(
        [sys.executable, "-m", "fleetcast", *arguments],
        capture_output=True,
        text=True,
        env=clean | environment,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        ([], {}, "JWT_SECRET_KEY"),
        ([], {"JWT_SECRET_KEY": "short"}, "at least 32 bytes"),
        (["--host", "0.0.0.0"], {"JWT_DEV_MODE": "true"}, "JWT_DEV_MODE"),
        (["--port", "70000"], {"JWT_SECRET_KEY": SECRET}, "port: "),
        (["--host", "203.0.113.1"], {"JWT_SECRET_KEY": SECRET}, "cannot listen"),
        ([], {"JWT_SECRET_KEY": SECRET, "FLEETCAST_LIMITS": '{"tick": 1}'}, "unknown name 'tick'"),
        ([], {"JWT_SECRET_KEY": SECRET, "FLEETCAST_LIMITS": '{"tick_ms": 0}'}, "tick_ms must be above 0"),
        ([], {"JWT_SECRET_KEY": SECRET, "FLEETCAST_LIMITS": "{"}, "settings cannot be read"),
    ],
)
def test_bad_settings_end_in_one_clear_line(
    arguments: list[str], environment: dict[str, str], says: str
) -> None:
    ended = fleetcast("serve", *arguments, **environment)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert "short" not in ended.stderr


def test_a_token_stands_alone_on_the_last_line() -> None:
    ended = fleetcast("token", "--sub", "me", "--role", "operator", JWT_SECRET_KEY=SECRET)
    assert ended.returncode == 0
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", ended.stdout.splitlines()[-1])
