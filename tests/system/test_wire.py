"""Another user of the machine at a room's socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from actors.wire import Reachable, connect

pytestmark = pytest.mark.system

# Sends a call, and says how many bytes came back before the connection ended.
INTRUDER = """
import os, pickle, socket, struct, sys
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.connect("\\0" + sys.argv[1])
call = pickle.dumps((1, "enter", ()))
try:
    sock.sendall(struct.pack("=I", len(call)) + call)
    print(len(sock.recv(1)))
except OSError:
    print(0)
"""
# Listens where a room was, and answers nothing.
SQUATTER = """
import os, socket, sys
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.bind("\\0" + sys.argv[1])
sock.listen()
print("there", flush=True)
sys.stdin.read()
"""


class Room(Reachable):
    entered = 0

    async def enter(self) -> str:
        self.entered += 1
        return "welcome"


async def test_another_user_is_not_heard() -> None:
    room = Room()
    address = await room.address()
    command = [sys.executable, "-c", INTRUDER, address[1:]]
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert (ran.stdout.strip(), room.entered) == ("0", 0), ran.stderr
    ours = await connect(address)
    assert ours is not None
    assert await ours.call("enter", ()) == "welcome"
    ours.close()
    await room.close_entrance()


@pytest.fixture
def squatted() -> Iterator[str]:
    """Where another user listens."""
    name = "fleetcast-squatter"
    command = [sys.executable, "-c", SQUATTER, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as squatter:
        assert squatter.stdout is not None
        assert squatter.stdin is not None
        assert squatter.stdout.readline() == b"there\n"
        yield f"\0{name}"
        squatter.stdin.close()


async def test_another_users_socket_is_not_spoken_to(squatted: str) -> None:
    assert await connect(squatted) is None
