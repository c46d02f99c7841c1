"""What is compiled, and kept compiled from one run to the next."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config

KEPT = 8  # folders
HERE = Path(__file__).parent


@cache
def _kept() -> bool:
    """Whether there is a place for it. It goes by all that can be compiled: numba itself looks at the file of
    a function only, and would keep one that calls what has changed elsewhere."""
    sources = sorted(HERE.rglob("*.py"))
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "fleetcast"
        folder = home / f"compiled-{version}"
        if not folder.exists():
            folder.mkdir(parents=True)
            _forget(home)
    except (OSError, RuntimeError):  # the second where nobody has a home
        return False
    config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    return os.access(folder, os.W_OK)


# Kernels make no arrays: they work on those that they are given. Without numba's counting of references to
# these (`_nrt`, which its stubs do not have) the same kernels were measured to be six times as fast.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}


def _forget(home: Path) -> None:
    """What other versions left, but for the latest."""
    left = sorted(home.glob("compiled-*"), key=lambda path: path.stat().st_mtime)
    for folder in left[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """By numba, when it is first called with such arguments. It is given numbers and arrays only, and makes
    no array."""
    made: Callable[..., Any] = numba.njit(cache=_kept(), **OPTIONS)(function)
    return made


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """As part of whatever compiled function calls it: for what is done with every job. A call hands on each
    array as seven words, which was measured to cost more than what most functions do."""
    made: Callable[..., Any] = numba.njit(cache=_kept(), forceinline=True, **OPTIONS)(function)
    return made
