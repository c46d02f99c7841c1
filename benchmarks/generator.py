"""Messages per CPU second of what makes load: our robots, Locust and k6.

Each keeps the same connections to the same server and sends one heartbeat per connection and interval, each
answered. The server counts; the CPU is that of the generator with all its children, over the same seconds.
Rounds alternate.

    python benchmarks/generator.py [--robots 1000] [--interval 0.1] [--seconds 8] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
WARM_UP_S = 4.0
WANTED = {"locust": 5.0, "k6": 1.0}
TICKS = os.sysconf("SC_CLK_TCK")


def command(
    name: str, port: int, robots: int, interval_s: float, seconds: float
) -> tuple[list[str], dict[str, str]]:
    url = f"ws://127.0.0.1:{port}/"
    common = {"WS_URL": url, "INTERVAL_S": str(interval_s), "ROBOTS": str(robots), "SECONDS": str(seconds)}
    binaries = Path(sys.executable).parent
    match name:
        case "fleetcast":
            program = [sys.executable, str(HERE / "generator_robots.py"), url.replace("ws", "http", 1)]
            return [*program, str(robots), str(interval_s)], common
        case "locust":
            program = [str(binaries / "locust"), "-f", str(HERE / "generator_locust.py"), "--headless"]
            return [
                *program,
                "-u",
                str(robots),
                "-r",
                str(robots),
                "--skip-log",
                "--loglevel",
                "ERROR",
            ], common
        case "k6":
            return [
                str(binaries / "k6"),
                "run",
                "--quiet",
                "--no-usage-report",
                str(HERE / "generator_k6.js"),
            ], common
    raise ValueError(name)


def cpu_s(pid: int) -> float:
    """Of a process and all its children, ended ones included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    used = sum(map(int, fields[11:15])) / TICKS
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return used + sum(cpu_s(int(child)) for child in children)


@contextmanager
def running(words: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        words,
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def one_round(name: str, options: argparse.Namespace) -> tuple[float, float]:
    """(messages per CPU second, messages a second)."""
    with tempfile.TemporaryDirectory() as folder:
        counted = Path(folder) / "count"
        with running([sys.executable, str(HERE / "generator_server.py"), str(counted)]) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            lasts_s = WARM_UP_S + options.seconds + 5
            words, environment = command(name, port, options.robots, options.interval, lasts_s)
            with running(words, **environment) as generator:
                time.sleep(WARM_UP_S)
                before, used, began = count(counted), cpu_s(generator.pid), time.monotonic()
                time.sleep(options.seconds)
                messages, used_s = count(counted) - before, cpu_s(generator.pid) - used
                return messages / used_s, messages / (time.monotonic() - began)


def count(path: Path) -> int:
    return int(struct.unpack("=q", path.read_bytes())[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--robots", type=int, default=1_000)
    parser.add_argument("--interval", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seen: dict[str, list[tuple[float, float]]] = {"fleetcast": [], "locust": [], "k6": []}
    for number in range(1, options.rounds + 1):
        for name, results in seen.items():
            results.append(one_round(name, options))
            print(f"round {number}, {name}: {results[-1][0]:,.0f} messages per CPU second", flush=True)
    wanted_per_s = options.robots / options.interval
    print(f"{options.robots} connections, {wanted_per_s:,.0f} messages a second wanted; medians")
    medians = {name: statistics.median(each[0] for each in results) for name, results in seen.items()}
    good = True
    for name, results in seen.items():
        sent = statistics.median(each[1] for each in results)
        low, high = min(each[0] for each in results), max(each[0] for each in results)
        spread = f"({low:,.0f}-{high:,.0f})"
        print(f"  {name:10} {medians[name]:9,.0f} {spread:18} per CPU second, {sent:7,.0f} a second")
    for name, least in WANTED.items():
        ratio = medians["fleetcast"] / medians[name]
        met = ratio >= least
        good &= met
        print(f"  times {name}: {ratio:.1f}, wanted {least:g}: {'PASS' if met else 'short'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
