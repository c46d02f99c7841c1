"""A file system with little room."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path


class SmallDisk:
    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)

    def fill(self, leave: int = 0) -> None:
        """Until about `leave` bytes are free, though others write at the same time."""
        ballast = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with contextlib.suppress(OSError):
            while os.statvfs(self.folder).f_bavail * 4_096 > leave:
                os.write(ballast, bytes(4_096))
        os.close(ballast)

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def mount(self, how: str) -> None:
        """`ro` or `rw`; fails while somebody has a file open to write."""
        subprocess.run(["mount", "-o", f"remount,{how}", self.folder], check=True)

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)
