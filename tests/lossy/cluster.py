"""A Ray in a process of its own. `python -m lossy.cluster` says where it is, and lives until its standard
input ends."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import ray

TESTS = Path(__file__).parents[1]


class Cluster(msgspec.Struct, frozen=True):
    address: str
    pid: int


def environment(**more: str) -> dict[str, str]:
    """Of processes that join it."""
    ours = {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "RAY_AUTH_MODE": "token"}
    return os.environ | ours | more


@contextmanager
def cluster() -> Iterator[Cluster]:
    process = subprocess.Popen(
        [sys.executable, "-m", "lossy.cluster"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Cluster(process.stdout.readline().strip(), process.pid)
    finally:
        process.stdin.close()
        process.stdout.close()
        assert process.wait(60) == 0


def main() -> None:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
