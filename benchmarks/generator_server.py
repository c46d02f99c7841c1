"""A WebSocket server that answers each message with a short one: `python generator_server.py FILE`.

Prints its port. The number of messages so far is in FILE, eight bytes.
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
from pathlib import Path

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

_ID = re.compile(rb'"id":("[^"]*"|\d+)')


class Answering(WSListener):
    def __init__(self, count: mmap.mmap) -> None:
        self._count = count

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            (number,) = struct.unpack_from("=q", self._count)
            struct.pack_into("=q", self._count, 0, number + 1)
            found = _ID.search(frame.get_payload_as_bytes())
            transport.send(WSMsgType.TEXT, b'{"type":"ack","id":%s}' % (found[1] if found else b'"-"'))


async def main(count: mmap.mmap) -> None:
    def listener(request: WSUpgradeRequest) -> WSListener:
        return Answering(count)

    server = await ws_create_server(listener, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_bytes(bytes(8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as count:
        uvloop.run(main(count))
