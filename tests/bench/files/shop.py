"""An app that costs next to nothing, so that what is measured is what stands in front of it."""

import asyncio
import sys
from pathlib import Path

VERSION = Path("VERSION").read_text().strip()
BODY = f'{{"app": "Bench app", "version": "{VERSION}"}}'.encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Shop(asyncio.Protocol):
    """Answers every request alike, and keeps connections unless it is told not to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            self.transport.write(ANSWER)
            if b"\r\nconnection: close" in head.lower():
                self.transport.close()
                return


async def main() -> None:
    host, port = (sys.argv[sys.argv.index(option) + 1] for option in ("--host", "--port"))
    server = await asyncio.get_running_loop().create_server(Shop, host, int(port))
    await server.serve_forever()


asyncio.run(main())
