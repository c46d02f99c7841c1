"""The front door: the command line, and the only place where all parts are wired."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import islice
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from actors.event_bus import event_bus
from fleet.errors import FleetError, Misuse, Unavailable
from fleet.events import MonitoringEvent, MonitoringEventType
from simulators.load.cli import Where, load_app
from simulators.queue.cli import queue_app
from simulators.queue.compare_cli import add_compare
from simulators.queue.sweep_cli import add_sweep
from simulators.queue.verify_cli import add_verify

if TYPE_CHECKING:
    from actors.attachment import Attachment
    from api.settings import Settings
    from simulators.load.venue import Venue
    from simulators.queue.experiment import Spread
    from simulators.scenario import ActorFault, Scenario

__all__ = ["MonitoringEvent", "MonitoringEventType", "attach", "event_bus", "main", "workers"]

app = typer.Typer(
    name="fleetcast",
    help="Watch, drive and simulate a fleet of robots.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
SIMULATION_TOKEN_TTL_S = 3_600.0
MOST_MISSED = 10  # calls in a row without an answer


def main() -> None:
    """Every expected failure is one line on stderr and exit code 2."""
    try:
        app()
    except FleetError as error:
        err.print(f"fleetcast: {error.detail}", markup=False)
        sys.exit(2)


@app.command()
def serve(
    host: str | None = typer.Option(None, help="Address to bind; default 127.0.0.1."),
    port: int | None = typer.Option(None, help="Port to bind; default 8000, 0 picks one."),
    address: str | None = typer.Option(None, help="Ray cluster to join; its fleet outlives this command."),
    data_dir: Path | None = typer.Option(
        None,
        help="Folder for the log and, without --store, for all that must survive; default fleetcast-data.",
    ),
    store: str | None = typer.Option(
        None,
        help="postgresql://USER@HOST/DATABASE instead of files; FLEETCAST_STORE keeps a password off `ps`.",
    ),
    simulate: int = typer.Option(0, min=0, max=100_000, help="Robots to simulate."),
    jobs_per_second: float | None = typer.Option(
        None, min=0.0, help="Jobs to submit, with --simulate; default 0.2 per robot."
    ),
    service_seconds: float = typer.Option(2.0, min=0.001, help="Mean length of a simulated job."),
    num_cpus: int = typer.Option(2, min=1, help="Logical CPUs of the local Ray."),
) -> None:
    """Serve a fleet until Ctrl-C or SIGTERM."""
    from api import redaction
    from api.settings import check_folder, load

    if jobs_per_second is not None and not simulate:
        raise Misuse("--jobs-per-second needs --simulate: without robots nobody does the jobs")
    settings = load(host=host, port=port, data_dir=data_dir, store=store)
    if simulate and settings.jwt_jwks_url and not settings.jwt_dev_mode:
        raise Misuse(
            f"--simulate makes its own token, which JWT_ALGORITHM={settings.jwt_algorithm} does not admit: "
            "use HS256 or, on this machine alone, JWT_DEV_MODE=true"
        )
    _check_port(settings)
    redaction.install()
    folder = settings.folder()
    if folder is not None:
        check_folder(folder)
        _log_to(folder)
    if not address:
        _check_store(settings)
    rate = 0.2 * simulate if jobs_per_second is None else jobs_per_second
    _run_fleet(settings, address, num_cpus, simulate, rate, service_seconds)


def _check_store(settings: Settings) -> None:
    """Before Ray starts, too. Where the fleet may run already, the supervisor does it."""
    from actors import stores

    stores.check(settings.store_url(), settings.namespace, settings.limits())


def _log_to(folder: Path) -> None:
    """At most four files of 10 MB."""
    handler = RotatingFileHandler(folder / "fleetcast.log", maxBytes=10_000_000, backupCount=3)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)


def _check_port(settings: Settings) -> None:
    """Before Ray starts: a port in use should not cost six seconds to learn."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise Misuse(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): "
                "choose another --host or --port"
            ) from None


def _run_fleet(
    settings: Settings, address: str | None, num_cpus: int, robots: int, rate: float, service_s: float
) -> None:
    """Both signals end this in the same way, whatever it is doing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        out.print("fleetcast: starting Ray, a few seconds ...")
        import ray
        import uvloop

        from actors.supervisor import Supervisor, connect

        join = partial(_join, address, settings.namespace) if address else None
        _uninterrupted(join or partial(connect, None, settings.namespace, num_cpus))
        supervisor = Supervisor(
            settings.namespace, settings.limits(), version("fleetcast"), bool(address), settings.store_url()
        )
        uvloop.run(_serve(settings, supervisor, robots, rate, service_s))
    except KeyboardInterrupt:
        pass
    finally:
        with contextlib.suppress(NameError):
            ray.shutdown()
    out.print("fleetcast: stopped")


def attach(address: str = "auto", namespace: str | None = None) -> Attachment:
    """From now on the `broadcast_*` functions of `api.routers.websockets` reach the fleet's watchers, and
    `event_bus` hears the fleet. `address` is that of the Ray cluster. `close()` on what is returned, or a
    `with` statement around it, ends it and leaves Ray as it was found.

    Raises Misuse if no cluster answers there, or no fleet runs on it (`namespace`, else
    FLEETCAST_NAMESPACE, else "fleetcast")."""
    import ray

    from actors.attachment import Attachment
    from actors.client import FleetClient
    from actors.supervisor import Supervisor
    from api import broadcasts
    from fleet.limits import Limits

    namespace = namespace or os.environ.get("FLEETCAST_NAMESPACE", "fleetcast")
    ours = not ray.is_initialized()
    if ours:
        _join(address, namespace)
    undo = contextlib.ExitStack()
    try:
        if ours:
            undo.callback(ray.shutdown)
        client = FleetClient(Supervisor(namespace, Limits()).find(), Limits())
        attachment = Attachment(client, undo)
        broadcasts.attach(attachment)
        undo.callback(broadcasts.detach)
        event_bus.attach(client)
        undo.callback(event_bus.detach)
    except BaseException:
        undo.close()
        raise
    return attachment


def _join(address: str, namespace: str) -> None:
    from actors.supervisor import connect

    try:
        _check_reachable(address)
        connect(address, namespace, None)
    except (ConnectionError, OSError, ValueError):
        raise Misuse(f"no Ray cluster answers at {address}") from None


def _check_reachable(address: str) -> None:
    """Ray itself would try for ever. Raises OSError; names such as "auto" are Ray's to look up."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()


def _uninterrupted(start: Callable[[], None]) -> None:
    """A start of Ray that is cut short leaves some of its processes behind, so a signal waits until it is
    done. Ray takes SIGTERM for itself meanwhile, if it is let."""
    from ray._private import utils

    told: list[int] = []
    ours = (signal.SIGINT, signal.SIGTERM)
    takes, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda handler: None
    for number in ours:
        signal.signal(number, lambda number, frame: told.append(number))
    try:
        start()
    finally:
        utils.set_sigterm_handler = takes
        for number in ours:
            signal.signal(number, _interrupt)
    if told:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


async def _serve(settings: Settings, supervisor: Any, robots: int, rate: float, service_s: float) -> None:
    from api import collector
    from api.main import DoorServer

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    fleet = await asyncio.to_thread(supervisor.client)
    server = DoorServer(fleet, settings, supervisor.version)
    started: asyncio.Future[int] = loop.create_future()
    serving = loop.create_task(server.run(started.set_result))
    told = loop.create_task(stopping.wait())

    def stop() -> None:
        """The second signal waits for nobody, not even for a start that hangs."""
        if stopping.is_set():
            serving.cancel()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await asyncio.wait((serving, started, told), return_when="FIRST_COMPLETED")
    simulation = None
    if started.done() and not stopping.is_set():
        collector.settle()
        url = f"http://{_host_in_url(settings.host)}:{started.result()}"
        _say_where(url, settings)
        simulation = await _simulate(supervisor, settings, url, robots, rate, service_s)
    await asyncio.wait((serving, told), return_when="FIRST_COMPLETED")
    if simulation is not None:
        simulation.cancel()
    await server.drain()
    server.stop()
    [ended] = await asyncio.gather(serving, return_exceptions=True)
    await fleet.close()
    if isinstance(ended, Exception):
        raise ended


def _host_in_url(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _say_where(url: str, settings: Settings) -> None:
    sockets = url.replace("http", "ws", 1) + "/api/v1/ws"
    out.print(f"fleetcast: serving on {url}")
    for path in ("live-jobs", "robot-status", "queue-metrics", "metrics/stream"):
        out.print(f"  {sockets}/{path}")
    if settings.jwt_dev_mode:
        out.print("  no token needed: JWT_DEV_MODE=true")
    elif settings.jwt_jwks_url:
        out.print(f"  a token: {settings.jwt_algorithm}, of the issuer whose keys JWT_JWKS_URL shows")
    else:
        out.print("  a token, with the same JWT_SECRET_KEY: fleetcast token --sub me --role operator")


async def _simulate(
    supervisor: Any, settings: Settings, url: str, robots: int, rate: float, service_s: float
) -> asyncio.Task[None] | None:
    """One actor of robots and one job source, on the real network path."""
    if not robots:
        return None
    from simulators.load.job_source import JobSource
    from simulators.load.swarm import Swarm
    from simulators.robot import RobotProfile

    token = _mint(settings, "simulation", "operator", SIMULATION_TOKEN_TTL_S)
    profile = RobotProfile(service_mean_s=service_s)
    parts = [
        supervisor.simulator("swarm", Swarm, url, token, robots, profile),
        supervisor.simulator("job-source", JobSource, url, token, rate, 1),
    ]
    for part in parts:
        await part.start()
    out.print(f"fleetcast: {robots} simulated robots, {rate:g} jobs/s")
    return asyncio.get_running_loop().create_task(_renew(parts, settings))


def _mint(settings: Settings, subject: str, role: str, ttl_s: float) -> str:
    """A token as this server wants it; empty where there is no secret."""
    from api.auth import mint

    claims = {"iss": settings.jwt_issuer, "aud": settings.jwt_audience}
    named = {name: value for name, value in claims.items() if value}
    secret = settings.secret()
    return mint(secret, subject, role, ttl_s, time.time(), **named) if secret else ""


async def _renew(parts: list[Any], settings: Settings) -> None:
    while True:
        await asyncio.sleep(SIMULATION_TOKEN_TTL_S / 2)
        for part in parts:
            with contextlib.suppress(FleetError):  # the next half hour is another chance
                await part.renew(_mint(settings, "simulation", "operator", SIMULATION_TOKEN_TTL_S))


@app.command()
def token(
    sub: str = typer.Option(..., help="Who the token is for."),
    role: str = typer.Option("viewer", help="viewer, operator or admin."),
    ttl: float = typer.Option(3_600.0, min=1.0, help="Seconds until it expires."),
) -> None:
    """Print a token, alone on the last line."""
    from api.auth import ROLES
    from api.settings import load

    if role not in ROLES:
        raise Misuse(f"--role must be one of {', '.join(ROLES)}")
    settings = load()
    if settings.jwt_jwks_url:
        raise Misuse(f"JWT_ALGORITHM={settings.jwt_algorithm}: only the issuer can make a token")
    minted = _mint(settings, sub, role, ttl)
    if not minted:
        raise Misuse("set JWT_SECRET_KEY to the secret of the server")
    print(minted)


URL = typer.Option(None, envvar="FLEETCAST_URL", help="The server; default http://127.0.0.1:8000.")
TOKEN = typer.Option(
    None, envvar="FLEETCAST_TOKEN", help="A token; default: one for a minute, minted with JWT_SECRET_KEY."
)


def _client(url: str | None, token: str | None, role: str, ttl_s: float = 60.0) -> tuple[str, str]:
    """(base URL, token); an empty token where there is nothing to make one from."""
    from api.settings import load

    if not token and os.environ.get("JWT_SECRET_KEY"):
        token = _mint(load(), "cli", role, ttl_s)
    return (url or "http://127.0.0.1:8000").rstrip("/"), token or ""


class Refused(Misuse):
    """`status` is that of HTTP."""

    status = 0


def _ask(method: str, url: str, token: str, key: str = "", **given: Any) -> Any:
    """`key` makes it safe to ask again."""
    import httpx

    base = url.split("/api")[0]
    try:
        token.encode("ascii")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Idempotency-Key": key} if key else {}
        answer = httpx.request(method, url, headers=headers, timeout=30.0, **given)
    except httpx.TransportError as error:
        raise Unavailable(f"no server answers at {base} ({type(error).__name__})") from None
    except UnicodeError:
        raise Misuse("the token is none: it has characters that no token has") from None
    except (httpx.InvalidURL, ValueError):
        raise Misuse(f"--url {base} is no address of a server") from None
    kind = answer.headers.get("content-type", "")
    if answer.is_success and kind == "application/json":
        return answer.json()
    if answer.is_success:
        raise Misuse(f"what answers at {base} is not fleetcast")
    detail = answer.json()["detail"] if kind == "application/problem+json" else answer.reason_phrase
    refused = Refused(f"the server refused ({answer.status_code}): {detail}")
    refused.status = answer.status_code
    refused.retry_after_s = float(answer.headers.get("retry-after", 1))
    raise refused


def _ask_until_heard(method: str, url: str, token: str, key: str, **given: Any) -> Any:
    """Again and again while the server is away or has no room; its first answer counts."""
    missed = 0
    while True:
        try:
            return _ask(method, url, token, key, **given)
        except (Unavailable, Refused) as error:
            missed += isinstance(error, Unavailable)
            busy = isinstance(error, Refused) and error.status in (429, 503)
            if missed > MOST_MISSED or not (busy or isinstance(error, Unavailable)):
                raise
            err.print(f"fleetcast: {error.detail}; trying again")
            time.sleep(error.retry_after_s or 1.0)


@app.command()
def robot_key(
    robot: str = typer.Option(..., help="The robot that may use the key."),
    name: str = typer.Option("", help="What to call the key."),
    ttl: float | None = typer.Option(None, min=1.0, help="Seconds until it expires; default never."),
    url: str | None = URL,
    token: str | None = TOKEN,
) -> None:
    """Issue an API key for a robot; the secret, shown this once, is alone on the last line."""
    base, token = _client(url, token, "admin")
    body = {"robot_id": robot, "name": name, "ttl_s": ttl}
    key = _ask("POST", f"{base}/api/v1/robot-api-keys", token, json=body)
    err.print(f"key {key['key_id']} of {robot}, expires: {key['expires_at'] or 'never'}")
    print(key["api_key"])


@app.command()
def submit(
    name: str = typer.Argument(help="What to run."),
    payload: str = typer.Option("{}", help="A JSON object."),
    priority: int = typer.Option(10, min=0, max=20, help="0 is the most urgent."),
    count: int = typer.Option(1, min=1, max=1_000, help="How many such jobs."),
    url: str | None = URL,
    token: str | None = TOKEN,
) -> None:
    """Submit jobs; prints their ids."""
    try:
        body = json.loads(payload)
    except ValueError as error:
        raise Misuse(f"--payload is not JSON: {error}") from None
    base, token = _client(url, token, "operator")
    job = {"name": name, "payload": body, "priority": priority}
    for made in _ask("POST", f"{base}/api/v1/jobs", token, json=[job] * count)["jobs"]:
        print(made["job_id"])


NAME = typer.Option(None, help="Jobs of this name.")
ENVIRONMENT = typer.Option(None, help="Jobs of this environment.")
ROBOT = typer.Option(None, help="Jobs that this robot had last.")
ERROR = typer.Option(None, help="Jobs whose error has this text in it.")


@app.command()
def dead_letters(
    name: str | None = NAME,
    environment: str | None = ENVIRONMENT,
    robot: str | None = ROBOT,
    error: str | None = ERROR,
    limit: int = typer.Option(50, min=1, max=500, help="How many at most."),
    url: str | None = URL,
    token: str | None = TOKEN,
) -> None:
    """Print jobs that failed for good, newest first: a table in a terminal, a JSON line each in a pipe."""
    from rich.table import Table

    base, token = _client(url, token, "viewer")
    query = _given(name=name, environment=environment, robot_id=robot, error=error)
    table = Table("job", "name", "environment", "robot", "attempts", "finished", "error")
    for job in islice(_all_dead_letters(base, token, query | {"limit": str(limit)}), limit):
        if not out.is_terminal:
            print(json.dumps(job))
        cells = (job["attempt"], job["finished_at"], job["error"])
        table.add_row(job["job_id"], job["name"], job["environment"], job["robot_id"], *map(str, cells))
    if out.is_terminal:
        out.print(table)


def _given(**named: str | None) -> dict[str, str]:
    return {name: value for name, value in named.items() if value is not None}


def _all_dead_letters(base: str, token: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    while True:
        page = _ask("GET", f"{base}/api/v1/jobs/dead-letters", token, params=query)
        yield from page["jobs"]
        if page["next_cursor"] is None:
            return
        query["cursor"] = page["next_cursor"]


@app.command()
def redrive(
    job_ids: list[str] | None = typer.Argument(None, help="These jobs; else those that the options name."),
    name: str | None = NAME,
    environment: str | None = ENVIRONMENT,
    robot: str | None = ROBOT,
    error: str | None = ERROR,
    everything: bool = typer.Option(False, "--all", help="All dead letters."),
    url: str | None = URL,
    token: str | None = TOKEN,
) -> None:
    """Submit jobs that failed for good once more; tells how far it is."""
    wanted: dict[str, Any] = _given(name=name, environment=environment, robot_id=robot, error=error)
    wanted |= {"job_ids": job_ids} if job_ids else {}
    if not wanted and not everything:
        raise Misuse("say which: job ids, --name, --environment, --robot, --error or --all")
    base, token = _client(url, token, "operator", ttl_s=3_600.0)
    run, total, body = secrets.token_hex(8), 0, {"filter": wanted}
    for call in itertools.count():
        done = _ask_until_heard("POST", f"{base}/api/v1/jobs/redrive", token, f"{run}-{call}", json=body)
        total += done["redriven"]
        if done["next_cursor"] is None:
            break
        err.print(f"fleetcast: {total} submitted again, {done['remaining']} to look at")
        body |= {"cursor": done["next_cursor"]}
    print(f"{total} submitted again")


@app.command()
def status(url: str | None = URL, token: str | None = TOKEN) -> None:
    """Print the fleet's counts and its robots."""
    from rich.table import Table

    base, token = _client(url, token, "viewer")
    counts = _ask("GET", f"{base}/api/v1/metrics/fleet", token)
    robots = _ask("GET", f"{base}/api/v1/robots", token, params={"limit": 50})
    out.print("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items()))
    table = Table("robot", "status", "cpu %", "memory MB", "jobs", "last seen")
    for robot in robots["robots"]:
        metrics = robot["metrics"]
        cells = (metrics["cpu_percent"], metrics["memory_mb"], len(robot["current_job_ids"]))
        table.add_row(robot["robot_id"], robot["status"], *map(str, cells), robot["last_seen"])
    out.print(table)
    if robots["total"] > len(robots["robots"]):
        out.print(f"... and {robots['total'] - len(robots['robots'])} more")


STREAMS = {name: name for name in ("live-jobs", "robot-status", "queue-metrics")} | {
    "metrics": "metrics/stream"
}


@app.command()
def watch(
    stream: str = typer.Argument(help="live-jobs, robot-status, queue-metrics or metrics."),
    interval: int = typer.Option(5, min=1, max=60, help="Seconds, for metrics."),
    url: str | None = URL,
    token: str | None = TOKEN,
) -> None:
    """Follow a stream: a live table in a terminal, one JSON line per event in a pipe."""
    if stream not in STREAMS:
        raise Misuse(f"choose a stream: {', '.join(STREAMS)}")
    base, token = _client(url, token, "viewer")
    query = f"?token={token}" if token else "?"
    query += f"&interval={interval}" if stream == "metrics" else ""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_watch(base.replace("http", "ws", 1) + f"/api/v1/ws/{STREAMS[stream]}{query}", stream))


async def _watch(uri: str, stream: str) -> None:
    """A row per job or robot, 30 at most; the other streams have one."""
    from rich.live import Live
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, WebSocketException

    rows: dict[str, dict[str, Any]] = {}
    try:
        async with connect(uri) as socket:
            with (
                Live(console=out, auto_refresh=False) if out.is_terminal else contextlib.nullcontext() as live
            ):
                async for message in socket:
                    if live is None:
                        print(message, flush=True)
                        continue
                    event = json.loads(message)
                    key = str(event.get("job_id") or event.get("robot_id") or stream)
                    if stream == "live-jobs":
                        rows.pop(key, None)  # the newest last; a robot keeps its place
                    rows[key] = _flat(event)
                    if len(rows) > 30:
                        del rows[next(iter(rows))]
                    live.update(_table(stream, rows), refresh=True)
        raise Unavailable(f"the stream ended: {socket.close_code} {socket.close_reason}")
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd else 1006
        raise Unavailable(f"the stream ended: {code} {closed.rcvd.reason if closed.rcvd else ''}") from None
    except BrokenPipeError:  # `| head`: who read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, WebSocketException) as error:
        raise Unavailable(f"cannot watch {uri.split('?')[0]} ({type(error).__name__})") from None


def _flat(event: dict[str, Any]) -> dict[str, Any]:
    """A metrics snapshot as one row; other events are flat already."""
    if "data" not in event:
        return event
    flat = {f"{part} {name}": v for part, values in event["data"].items() for name, v in values.items()}
    return {"timestamp": event["timestamp"], **flat}


def _table(stream: str, rows: dict[str, dict[str, Any]]) -> Any:
    from rich.table import Table

    if stream == "metrics":
        table = Table("metric", "value", title=stream)
        for name, value in next(iter(rows.values())).items():
            table.add_row(name, str(value))
        return table
    table = Table(*next(iter(rows.values())), title=stream)
    for row in rows.values():
        table.add_row(*map(str, row.values()))
    return table


@contextlib.contextmanager
def _ray_of(address: str | None, namespace: str, num_cpus: int) -> Iterator[None]:
    """A Ray of our own on this machine, or the cluster at `address`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    out.print("fleetcast: starting Ray, a few seconds ...")
    import ray

    from actors.supervisor import connect

    join = partial(_join, address, namespace) if address else None
    try:
        _uninterrupted(join or partial(connect, None, namespace, num_cpus))
        yield
    except KeyboardInterrupt:
        raise Unavailable("stopped before the run began") from None
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_server(namespace: str, plan: Scenario) -> Iterator[tuple[str, str]]:
    """(URL, token)."""
    import ray

    from api.auth import mint
    from simulators.load.own_server import own_server

    out.print("fleetcast: starting a server ...")
    interval_s = max((fleet.heartbeats.interval for fleet in plan.fleets.values()), default=5.0)
    address = ray.get_runtime_context().gcs_address
    with own_server(address, namespace, max(1, round(interval_s * 1_000))) as server:
        ttl_s = plan.lasts_s + 3_600
        yield server.url, mint(server.secret, "load", "operator", ttl_s, time.time())


async def _harm_actor(supervisor: Any, fault: ActorFault) -> None:
    """Of the server that we started, on this machine."""
    from actors.supervisor import JOB_STORE, REGISTRY, broadcaster_name

    names = {"job_store": JOB_STORE, "registry": REGISTRY}
    name = names.get(fault.actor) or broadcaster_name(fault.actor.replace("_", "-"))
    if fault.kind == "kill_actor":
        await asyncio.to_thread(supervisor.kill, name)
        return
    pid = await asyncio.to_thread(supervisor.process_of, name)
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(fault.lasts or 0.0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _set_up(where: Where, plan: Scenario) -> Iterator[Venue]:
    """For a load test: a server that answers, and a Ray whose nodes make the load."""
    from actors.supervisor import SERVER_ACTORS, Supervisor
    from fleet.limits import Limits
    from simulators.load.venue import Venue

    namespace = f"fleetcast-load-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as undo:
        undo.enter_context(_ray_of(where.address, namespace, where.num_cpus))
        supervisor = Supervisor(namespace, Limits())
        if where.serve:
            url, token = undo.enter_context(_own_server(namespace, plan))
        else:
            url, token = _client(where.url, where.token, "operator", plan.lasts_s + 3_600)
        harm = partial(_harm_actor, supervisor) if where.serve else None
        everywhere = supervisor.simulator_everywhere
        yield Venue(url, token, supervisor.simulator, everywhere, frozenset(SERVER_ACTORS), harm)


def _run_loop(work: Any) -> Any:
    import uvloop

    return uvloop.run(work)


@contextlib.contextmanager
def workers(processes: int | None = None, address: str | None = None) -> Iterator[Spread]:
    """A map over so many processes, as `simulators.queue.sweep` takes it: on the Ray that is connected, else
    the cluster at `address`, else one of our own, which ends with this. Without `processes`, as many as there
    are processors. Raises Misuse if no cluster answers there."""
    import ray

    from actors.spread import spread

    with contextlib.ExitStack() as undo:
        if not ray.is_initialized():
            undo.enter_context(_ray_for(processes, address))
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        places = max(1, int(there.get("CPU", 1)))
        # Where there are no more processes than that, a second point waits at each for the first to end.
        yield partial(spread, at_once=2 * places if processes in (None, places) else processes)


@contextlib.contextmanager
def _ray_for(processes: int | None, address: str | None) -> Iterator[None]:
    """An interrupt stays one, for whoever wants to tell what was done until then."""
    import ray

    from actors.supervisor import connect

    err.print("fleetcast: starting Ray, a few seconds ...")
    namespace = f"fleetcast-queue-{secrets.token_hex(4)}"
    join = partial(_join, address, namespace) if address else None
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _uninterrupted(join or partial(connect, None, namespace, processes or os.cpu_count()))
        yield
    finally:
        ray.shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command()
def down(
    address: str = typer.Option("auto", help="Ray cluster whose fleet to stop."),
) -> None:
    """Stop the actors that `serve --address` left running."""
    import ray

    from actors.supervisor import Supervisor
    from fleet.limits import Limits

    namespace = os.environ.get("FLEETCAST_NAMESPACE", "fleetcast")
    _join(address, namespace)
    ended = Supervisor(namespace, Limits()).stop()
    ray.shutdown()
    out.print(f"fleetcast: stopped {ended} actors")


queue = queue_app(out)
add_sweep(queue, out, workers, version("fleetcast"))
add_compare(queue, out)
add_verify(queue, out)
app.add_typer(queue, name="queue")
app.add_typer(load_app(_set_up, _run_loop, out, version("fleetcast")), name="load")

if __name__ == "__main__":
    main()
