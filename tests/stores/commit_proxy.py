"""A way to PostgreSQL on which a COMMIT is lost, or the answer to it, or the connection right after."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Literal

COMMITTED = b"COMMIT\0Z\0\0\0\5I"  # the end of its answer, and that the server is ready for more
SHUTDOWN = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
GOODBYE = b"E" + struct.pack("!i", 4 + len(SHUTDOWN)) + SHUTDOWN


class CommitProxy:
    """On a port of its own. `lose` is for the next COMMIT that passes: it, its answer, or what follows that:
    the server says that it ends the connection, and does so later."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.lose: Literal["", "request", "answer", "rest"] = ""
        self.lost = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._open.append(client)
                with contextlib.suppress(ConnectionError):
                    self._join(client, socket.create_connection(self._target))
                    continue
                client.close()

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        self._open.append(server)
        mute = threading.Event()
        for pump in (self._up, self._down):
            threading.Thread(target=pump, args=(client, server, mute), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, mute: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if self.lose in ("request", "answer") and b"COMMIT" in data:
                    lose, self.lose = self.lose, ""
                    self.lost += 1
                    if lose == "request":
                        break
                    mute.set()
                server.sendall(data)
        _end(client, server)

    def _down(self, client: socket.socket, server: socket.socket, mute: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if mute.is_set():
                    break
                before, committed, _ = data.partition(COMMITTED)
                if self.lose == "rest" and committed:
                    self.lose = ""
                    self.lost += 1
                    client.sendall(before + committed + GOODBYE)
                    return
                client.sendall(data)
        _end(client, server)

    def close(self) -> None:
        self._listening.close()
        for one in self._open:
            one.close()


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
