"""A disk whose syncs fail: SQLite's own layer for files, with one function of it replaced.

Works where Python's sqlite3 uses the libsqlite3 of the system, so that both are the same library.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_void_p
from typing import Any

IOERR_FSYNC = 1_034
MAIN_DB, WAL = 0x100, 0x80000
FUNCTIONS = 18  # of a file, in version 3 of its methods
X_SYNC = 4  # the place among them: close, read, write, truncate, sync

Sync = CFUNCTYPE(c_int, c_void_p, c_int)
Open = CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p, c_int, POINTER(c_int))

_for_good: list[Any] = []  # what SQLite may call at any time


class Methods(ctypes.Structure):
    _fields_ = [("version", c_int), ("functions", c_void_p * FUNCTIONS)]


class File(ctypes.Structure):
    _fields_ = [("methods", POINTER(Methods))]


class Vfs(ctypes.Structure):
    _fields_ = [
        ("version", c_int),
        ("file_size", c_int),
        ("max_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("app_data", c_void_p),
        ("open", Open),
    ]


class FailingDisk:
    """After so many more, syncs of the file or of its log fail. For all of this process, to its end."""

    def __init__(self) -> None:
        library = ctypes.CDLL("libsqlite3.so.0")
        library.sqlite3_vfs_find.restype = POINTER(Vfs)
        self._vfs = library.sqlite3_vfs_find(None).contents
        self._left: dict[int, int] = {}
        _for_good.append(self)
        self._kept: list[Any] = []
        self._open = Open(ctypes.cast(self._vfs.open, c_void_p).value)
        self._vfs.open = self._keep(Open(self._opened))

    def fail_after(self, kind: int, syncs: int) -> None:
        self._left[kind] = syncs

    def _keep(self, called: Any) -> Any:
        self._kept.append(called)
        return called

    def _opened(self, vfs: Any, name: Any, file: Any, flags: int, out: Any) -> int:
        code = int(self._open(vfs, name, file, flags, out))
        if code == 0 and (kind := flags & (MAIN_DB | WAL)):
            self._watch(ctypes.cast(file, POINTER(File)).contents, kind)
        return code

    def _watch(self, file: File, kind: int) -> None:
        methods = Methods.from_buffer_copy(file.methods.contents)
        sync = Sync(methods.functions[X_SYNC])

        def maybe(which: Any, flags: int) -> int:
            self._left[kind] = self._left.get(kind, 1 << 60) - 1
            if self._left[kind] < 0:
                return IOERR_FSYNC
            return int(sync(which, flags))

        replaced = self._keep(Sync(maybe))
        methods.functions[X_SYNC] = ctypes.cast(replaced, c_void_p).value
        file.methods = ctypes.pointer(self._keep(methods))
