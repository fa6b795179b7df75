"""Print the open TCP ports of a host, as seen from here: `open_ports.py ADDRESS [FIRST-LAST]`.

Only the kernel is waited for: however late this process gets its turn, an answer that has come is not overlooked.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
import time
from collections.abc import Sequence

#: Connections under way at once, and seconds after which a port that says nothing counts as closed.
AT_ONCE, PATIENCE = 800, 0.5


def open_of(address: str, ports: Sequence[int]) -> list[int]:
    connections = {}
    poll = select.poll()
    try:
        for port in ports:
            connection = socket.socket()
            connection.setblocking(False)
            if connection.connect_ex((address, port)) not in (0, errno.EINPROGRESS):
                connection.close()
                continue
            connections[connection.fileno()] = (port, connection)
            poll.register(connection, select.POLLOUT)
        deadline = time.monotonic() + PATIENCE
        answered: set[int] = set()
        while len(answered) < len(connections):
            ready = [number for number, _event in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)]
            for number in ready:
                poll.unregister(number)
            answered.update(ready)
            if not ready and time.monotonic() >= deadline:
                break
        return [
            port
            for number, (port, connection) in connections.items()
            if number in answered and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        ]
    finally:
        for _port, connection in connections.values():
            connection.close()


if __name__ == "__main__":
    first, last = (int(word) for word in (sys.argv[2] if len(sys.argv) > 2 else "1-10000").split("-"))
    found = [
        port
        for start in range(first, last + 1, AT_ONCE)
        for port in open_of(sys.argv[1], range(start, min(start + AT_ONCE, last + 1)))
    ]
    print(*found)
