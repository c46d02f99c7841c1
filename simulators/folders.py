"""Folders for results."""

from __future__ import annotations

import re
from pathlib import Path

from fleet.errors import Misuse


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
