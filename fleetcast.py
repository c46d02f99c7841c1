"""The front door: the command line, and the only place where all parts are wired."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from fleet.errors import FleetError, Misuse

if TYPE_CHECKING:
    from api.settings import Settings

app = typer.Typer(
    name="fleetcast",
    help="Watch, drive and simulate a fleet of robots.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
SIMULATION_TOKEN_TTL_S = 3_600.0


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
    simulate: int = typer.Option(0, min=0, max=100_000, help="Robots to simulate."),
    jobs_per_second: float = typer.Option(0.0, min=0.0, help="Jobs to submit; default 0.2 per robot."),
    service_seconds: float = typer.Option(2.0, min=0.001, help="Mean length of a simulated job."),
    num_cpus: int = typer.Option(2, min=1, help="Logical CPUs of the local Ray."),
) -> None:
    """Serve a fleet until Ctrl-C or SIGTERM."""
    from api import redaction
    from api.settings import load

    settings = load(host=host, port=port)
    _check_port(settings)
    redaction.install()
    rate = jobs_per_second or 0.2 * simulate
    _run_fleet(settings, address, num_cpus, simulate, rate, service_seconds)


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
    """Ray takes SIGTERM when it starts, so until the server runs both signals end the same way."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        out.print("fleetcast: starting Ray, a few seconds ...")
        import ray
        import uvloop

        from actors.supervisor import Supervisor, connect

        connect(address, settings.namespace, num_cpus)
        signal.signal(signal.SIGTERM, _interrupt)
        supervisor = Supervisor(settings.namespace, settings.limits(), version("fleetcast"), bool(address))
        uvloop.run(_serve(settings, supervisor, robots, rate, service_s))
    except KeyboardInterrupt:
        pass
    finally:
        with contextlib.suppress(NameError):
            ray.shutdown()
    out.print("fleetcast: stopped")


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


async def _serve(settings: Settings, supervisor: Any, robots: int, rate: float, service_s: float) -> None:
    from api.main import DoorServer

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    fleet = await asyncio.to_thread(supervisor.client)
    server = DoorServer(fleet, settings, supervisor.version)
    started: asyncio.Future[int] = loop.create_future()
    serving = loop.create_task(server.run(started.set_result))
    told = loop.create_task(stopping.wait())
    await asyncio.wait((serving, started, told), return_when="FIRST_COMPLETED")
    simulation = None
    if started.done() and not stopping.is_set():
        url = f"http://{_host_in_url(settings.host)}:{started.result()}"
        _say_where(url, settings)
        simulation = await _simulate(supervisor, settings, url, robots, rate, service_s)
    await asyncio.wait((serving, told), return_when="FIRST_COMPLETED")
    if simulation is not None:
        simulation.cancel()
    await server.drain()
    server.stop()
    await asyncio.gather(serving, return_exceptions=True)
    await fleet.close()


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

    token = _simulation_token(settings)
    profile = RobotProfile(service_mean_s=service_s)
    parts = [
        supervisor.simulator("swarm", Swarm, url, token, robots, profile),
        supervisor.simulator("job-source", JobSource, url, token, rate, 1),
    ]
    for part in parts:
        await part.start()
    out.print(f"fleetcast: {robots} simulated robots, {rate:g} jobs/s")
    return asyncio.get_running_loop().create_task(_renew(parts, settings))


def _simulation_token(settings: Settings) -> str:
    from api.auth import mint

    secret = settings.secret()
    claims = {"iss": settings.jwt_issuer, "aud": settings.jwt_audience}
    named = {name: value for name, value in claims.items() if value}
    if not secret:
        return ""
    return mint(secret, "simulation", "operator", SIMULATION_TOKEN_TTL_S, time.time(), **named)


async def _renew(parts: list[Any], settings: Settings) -> None:
    while True:
        await asyncio.sleep(SIMULATION_TOKEN_TTL_S / 2)
        for part in parts:
            await part.renew(_simulation_token(settings))


@app.command()
def token(
    sub: str = typer.Option(..., help="Who the token is for."),
    role: str = typer.Option("viewer", help="viewer, operator or admin."),
    ttl: float = typer.Option(3_600.0, min=1.0, help="Seconds until it expires."),
) -> None:
    """Print a token, alone on the last line."""
    from api.auth import ROLES, mint
    from api.settings import load

    if role not in ROLES:
        raise Misuse(f"--role must be one of {', '.join(ROLES)}")
    secret = load().secret()
    if not secret:
        raise Misuse("set JWT_SECRET_KEY to the secret of the server")
    print(mint(secret, sub, role, ttl, time.time()))


@app.command()
def down(
    address: str = typer.Option("auto", help="Ray cluster whose fleet to stop."),
) -> None:
    """Stop the actors that `serve --address` left running."""
    import ray

    from actors.supervisor import Supervisor, connect
    from fleet.limits import Limits

    namespace = os.environ.get("FLEETCAST_NAMESPACE", "fleetcast")
    try:
        connect(address, namespace, None)
    except ConnectionError:
        raise Misuse(f"no Ray cluster answers at {address}") from None
    ended = Supervisor(namespace, Limits()).stop()
    ray.shutdown()
    out.print(f"fleetcast: stopped {ended} actors")


if __name__ == "__main__":
    main()
