"""Print the open TCP ports of a host, as seen from here: `open_ports.py ADDRESS [FIRST-LAST]`."""

from __future__ import annotations

import asyncio
import sys

#: Connections under way at once, and seconds after which a port that says nothing counts as closed.
AT_ONCE, PATIENCE = 800, 0.5


async def is_open(address: str, port: int, slots: asyncio.Semaphore) -> bool:
    async with slots:
        try:
            _reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), PATIENCE)
        except (OSError, asyncio.TimeoutError):
            return False
        writer.close()
        return True


async def open_ports(address: str, ports: range) -> list[int]:
    slots = asyncio.Semaphore(AT_ONCE)
    answers = await asyncio.gather(*(is_open(address, port, slots) for port in ports))
    return [port for port, answer in zip(ports, answers, strict=True) if answer]


if __name__ == "__main__":
    first, last = (sys.argv[2] if len(sys.argv) > 2 else "1-10000").split("-")
    print(*asyncio.run(open_ports(sys.argv[1], range(int(first), int(last) + 1))))
