"""Folders for results."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fleet.errors import Misuse


def put_whole(path: Path, data: bytes) -> None:
    """Whoever reads it, even if we are killed here, finds all of it or what was there before. Raises
    OSError."""
    part = path.with_name(f".{path.name}")
    part.write_bytes(data)
    os.replace(part, path)


def make_folder(results: Path, name: str, started_at: str) -> Path:
    """results/<name>-<time>; a number more, if somebody was faster. Raises Misuse."""
    stamp = re.sub(r"[^0-9TZ]", "", started_at.partition(".")[0] + "Z")
    for number in range(1, 1_000):
        folder = results / (f"{name}-{stamp}" + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise Misuse(f"--results {results} cannot be written to: {error.strerror}") from None
        return folder
    raise Misuse(f"--results {results} is full of runs of this second")
