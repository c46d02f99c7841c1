"""`fleetcast serve` as a user runs it: real Ray, real sockets, simulated robots."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
import ray
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from api.auth import mint
from fleet.keys import well_formed

ROOT = Path(__file__).parents[2]
SECRET = "a secret of this test, thirty-two bytes or more"
SIGNALS = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]


def processes_of(group: int) -> list[str]:
    """Command lines of what still runs in the session that `group` leads. A zombie has ended; when it is
    taken note of is for its parent to say."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "sid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    running = [line.split(None, 2) for line in listed.splitlines()]
    return [args for sid, state, args in running if sid == str(group) and not state.startswith("Z")]


FOLDERS = contextlib.ExitStack()


@pytest.fixture(scope="module", autouse=True)
def _remove_folders() -> Iterator[None]:
    with FOLDERS:
        yield


@pytest.mark.parametrize("number", SIGNALS)
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
    demo.stdout.close()
    assert demo.wait(60) == 0, rest
    assert servers
    assert all(life.endswith("pending > claimed > running > completed") for life in lives), lives
    assert "0 out of order" in rest
    assert [line for pid in servers for line in processes_of(pid)] == []


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listed.stdout.split()]


def clean_environment() -> dict[str, str]:
    """With a data folder of its own: a fleet keeps others out of its store."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("JWT_", "FLEETCAST_"))}
    return ours | {"FLEETCAST_DATA_DIR": FOLDERS.enter_context(tempfile.TemporaryDirectory())}


def fleetcast(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleetcast", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment() | environment,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        ([], {}, "JWT_SECRET_KEY"),
        ([], {"JWT_ALGORITHM": "RS256"}, "JWT_JWKS_URL"),
        (["--simulate", "1"], {"JWT_ALGORITHM": "RS256", "JWT_JWKS_URL": "https://x.example"}, "--simulate"),
        ([], {"JWT_SECRET_KEY": "short"}, "at least 32 bytes"),
        (["--host", "0.0.0.0"], {"JWT_DEV_MODE": "true"}, "JWT_DEV_MODE"),
        (["--port", "70000"], {"JWT_SECRET_KEY": SECRET}, "FLEETCAST_PORT (--port): "),
        (["--host", "203.0.113.1"], {"JWT_SECRET_KEY": SECRET}, "cannot listen"),
        ([], {"JWT_SECRET_KEY": SECRET, "FLEETCAST_LIMITS": '{"tick": 1}'}, "unknown name 'tick'"),
        ([], {"JWT_SECRET_KEY": SECRET, "FLEETCAST_LIMITS": '{"tick_ms": 0}'}, "tick_ms must be above 0"),
        ([], {"JWT_SECRET_KEY": SECRET, "FLEETCAST_LIMITS": "{"}, "FLEETCAST_LIMITS: it is not JSON"),
        ([], {"JWT_SECRET_KEY": SECRET, "FLEETCAST_PROT": "1"}, "did you mean FLEETCAST_PORT?"),
        (["--data-dir", "/dev/null/x"], {"JWT_SECRET_KEY": SECRET}, "cannot be written to"),
        (["--port", "IN USE"], {"JWT_SECRET_KEY": SECRET}, "Address already in use"),
    ],
)
def test_bad_settings_end_in_one_clear_line(
    arguments: list[str], environment: dict[str, str], says: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = fleetcast("serve", *(port if a == "IN USE" else a for a in arguments), **environment)
    assert ended.returncode == 2
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert "short" not in ended.stderr


def test_bad_settings_are_found_before_ray_is_imported() -> None:
    code = "import sys, fleetcast; from api.settings import load; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_cluster_that_does_not_answer_is_named() -> None:
    for command in ("serve", "down"):
        ended = fleetcast(command, "--address", "127.0.0.1:1", JWT_SECRET_KEY=SECRET)
        assert (ended.returncode, ended.stderr) == (2, "fleetcast: no Ray cluster answers at 127.0.0.1:1\n")


def test_a_server_that_does_not_answer_is_named() -> None:
    ended = fleetcast("status", "--url", "http://127.0.0.1:1", JWT_SECRET_KEY=SECRET)
    assert ended.returncode == 2
    assert ended.stderr == "fleetcast: no server answers at http://127.0.0.1:1 (ConnectError)\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_ray_starts_leaves_nothing_behind(number: signal.Signals) -> None:
    serve = subprocess.Popen(
        [sys.executable, "-u", "-m", "fleetcast", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment() | {"JWT_SECRET_KEY": SECRET},
        start_new_session=True,
    )
    try:
        assert serve.stdout is not None
        assert "starting Ray" in serve.stdout.readline()
        while not any("gcs_server" in line for line in processes_of(serve.pid)):
            assert serve.poll() is None
        serve.send_signal(number)
        rest = serve.communicate(timeout=60)[0]
    finally:
        serve.kill()
        serve.communicate()
    assert (serve.returncode, rest) == (0, "fleetcast: stopped\n")
    assert processes_of(serve.pid) == []


def test_a_token_stands_alone_on_the_last_line() -> None:
    ended = fleetcast("token", "--sub", "me", "--role", "operator", JWT_SECRET_KEY=SECRET)
    assert ended.returncode == 0
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", ended.stdout.splitlines()[-1])


# -- one server with three simulated robots, and the commands that talk to it


class Served:
    """`fleetcast serve` in a process group of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "fleetcast", "serve", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment() | environment,
            start_new_session=True,
        )
        self.printed: list[str] = []
        self.url = self.until(r"serving on (http://\S+)")

    def until(self, pattern: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line)
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError("".join(self.printed))

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Its end must be clean and leave nothing behind. Ctrl-C in a terminal reaches the whole group."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self.printed += self.process.stdout.readlines()
        self.process.stdout.close()
        assert self.process.wait(60) == 0, "".join(self.printed)
        assert processes_of(self.process.pid) == []
        assert self.printed[-1] == "fleetcast: stopped\n"

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("data")
    server = Served("--simulate", "3", "--data-dir", str(folder), JWT_SECRET_KEY=SECRET, JWT_AUDIENCE="fleet")
    try:
        server.until("3 simulated (robots)")
        yield server
        server.stop(signal.SIGINT)
        assert (folder / "fleetcast.log").exists()
    finally:
        server.kill()


def command(server: Served, *arguments: str) -> str:
    environment = {"JWT_SECRET_KEY": SECRET, "JWT_AUDIENCE": "fleet", "FLEETCAST_URL": server.url}
    ended = fleetcast(*arguments, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_submitted_jobs_are_done_by_the_simulated_robots_and_watched(server: Served) -> None:
    environment = {"JWT_SECRET_KEY": SECRET, "JWT_AUDIENCE": "fleet", "FLEETCAST_URL": server.url}
    watch = subprocess.Popen(
        [sys.executable, "-m", "fleetcast", "watch", "live-jobs"],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment() | environment,
    )
    try:
        assert watch.stdout is not None
        json.loads(watch.stdout.readline())  # the job source is at work
        names = command(server, "submit", "weld", "--count", "3", "--payload", '{"n": 1}').split()
        assert len(set(names)) == 3
        lives: dict[str, list[str]] = {name: [] for name in names}
        while not all(life[-1:] == ["completed"] for life in lives.values()):
            event = json.loads(watch.stdout.readline())
            lives.get(event["job_id"], []).append(event["status"])
    finally:
        watch.kill()
        watch.communicate()
    assert all(life[-4:] == ["pending", "claimed", "running", "completed"] for life in lives.values())


@pytest.mark.parametrize(
    ("stream", "key"), [("robot-status", "robot_id"), ("queue-metrics", "depth"), ("metrics", "data")]
)
def test_watch_prints_a_json_line_per_event_in_a_pipe(server: Served, stream: str, key: str) -> None:
    environment = {"JWT_SECRET_KEY": SECRET, "JWT_AUDIENCE": "fleet", "FLEETCAST_URL": server.url}
    watch = subprocess.Popen(
        [sys.executable, "-m", "fleetcast", "watch", stream],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment() | environment,
    )
    try:
        assert watch.stdout is not None
        assert key in json.loads(watch.stdout.readline())
        watch.send_signal(signal.SIGINT)
        assert watch.communicate(timeout=20)[1] == ""
        assert watch.returncode == 0
    finally:
        watch.kill()


def test_status_names_the_robots(server: Served) -> None:
    printed = command(server, "status")
    assert "total robots 3" in printed
    assert "robot-sim-001" in printed


def test_a_robot_key_stands_alone_on_the_last_line_and_opens_a_stream(server: Served) -> None:
    secret = command(server, "robot-key", "--robot", "arm-1").splitlines()[-1]
    assert well_formed(secret)
    with connect(f"{server.url.replace('http', 'ws')}/api/v1/ws/queue-metrics?token={secret}") as socket:
        assert "depth" in json.loads(socket.recv(10))


def test_a_refusal_is_one_line_that_says_why(server: Served) -> None:
    ended = fleetcast(
        "submit", "weld", JWT_SECRET_KEY="another secret that is long enough", FLEETCAST_URL=server.url
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "fleetcast: the server refused (401): Invalid authentication token\n"


def goodbye_to(watcher: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            watcher.recv(timeout=20)
    return watcher.close_code


def test_a_fleet_on_a_cluster_outlives_its_server_until_down(ray_cluster: None) -> None:
    address = ray.get_runtime_context().gcs_address
    environment = {"JWT_SECRET_KEY": SECRET, "FLEETCAST_NAMESPACE": "outlives"}
    for known in ([], ["a"]):
        server = Served("--address", address, **environment)
        try:
            headers = {"Authorization": f"Bearer {mint(SECRET, 'x', 'operator', 60, time.time())}"}
            with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers) as http:
                assert [job["name"] for job in http.get("/jobs").json()["jobs"]] == known
                http.post("/jobs", json={"name": "a"})
            token = headers["Authorization"].removeprefix("Bearer ")
            stream = f"{server.url.replace('http', 'ws', 1)}/api/v1/ws/metrics/stream?token={token}"
            with connect(stream) as watcher:
                watcher.recv()
                server.stop()
                assert goodbye_to(watcher) == 1001
        finally:
            server.kill()
    down = fleetcast("down", "--address", address, FLEETCAST_NAMESPACE="outlives")
    assert (down.returncode, down.stdout) == (0, "fleetcast: stopped 7 actors\n")
    with pytest.raises(ValueError, match="job-store"):
        ray.get_actor("job-store", "outlives")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "--url", "http://[::1"], "is no address of a server"),
        (["status", "--token", "tök"], "the token is none"),
        (["watch", "live-jobs", "--url", "http://localhost:99999"], "cannot watch"),
        (["down", "--address", "nohost"], "no Ray cluster answers at nohost"),
        (["submit", "x", "--payload", "{"], "--payload is not JSON"),
        (["watch", "nothing"], "choose a stream"),
        (["token", "--sub", "x", "--role", "king"], "--role must be one of"),
        (["serve", "--jobs-per-second", "1"], "needs --simulate"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments: list[str], says: str) -> None:
    ended = fleetcast(*arguments, JWT_SECRET_KEY=SECRET)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert says in ended.stderr


def test_another_web_server_is_known_as_such() -> None:
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            ended = fleetcast(
                "status", "--url", f"http://127.0.0.1:{other.server_port}", JWT_SECRET_KEY=SECRET
            )
        finally:
            other.shutdown()
            thread.join()
    assert ended.returncode == 2
    assert "the server refused (404)" in ended.stderr
