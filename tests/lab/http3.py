"""Asks for a page by HTTP/3 alone: `python -m tests.lab.http3 ADDRESS NAME [ROOT]`; prints its status.

The certificate is verified by the file ROOT, and not at all without one.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any, cast

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent

#: Seconds after which nobody is there: a closed port of UDP says nothing.
PATIENCE = 4


class Client(QuicConnectionProtocol):
    """A connection for one request."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.http = H3Connection(self._quic)
        self.status = 0
        self.answered: asyncio.Future[int] | None = None

    async def get(self, name: str) -> int:
        self.answered = asyncio.get_running_loop().create_future()
        request = {":method": "GET", ":scheme": "https", ":authority": name, ":path": "/"}
        rows = [(key.encode(), value.encode()) for key, value in request.items()]
        self.http.send_headers(self._quic.get_next_available_stream_id(), rows, end_stream=True)
        self.transmit()
        return await self.answered

    def quic_event_received(self, event: QuicEvent) -> None:
        if self.answered and not self.answered.done() and isinstance(event, ConnectionTerminated):
            self.answered.set_exception(ConnectionError(event.reason_phrase or hex(event.error_code)))
        for part in self.http.handle_event(event):
            if isinstance(part, HeadersReceived):
                self.status = int(dict(part.headers)[b":status"])
            ended = isinstance(part, HeadersReceived | DataReceived) and part.stream_ended
            if ended and self.answered and not self.answered.done():
                self.answered.set_result(self.status)


async def _status(address: str, port: int, name: str, root: str) -> int:
    how = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name, cafile=root or None)
    if not root:
        how.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(PATIENCE), connect(address, port, configuration=how, create_protocol=Client) as client:
        return await cast(Client, client).get(name)


def status(address: str, name: str, root: str = "", *, port: int = 443) -> int:
    """Of the page "/"; 0 when nobody answers, an OSError when the server ends the connection or is not trusted."""
    try:
        return asyncio.run(_status(address, port, name, root))
    except TimeoutError:
        return 0


if __name__ == "__main__":
    print(status(*sys.argv[1:]))
