"""Light load on an app through its proxy: every request is counted, and what answered it."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from types import TracebackType

from tests.lab import settings


class Door(http.client.HTTPSConnection):
    """The proxy by its address; its certificate is checked by name."""

    def __init__(self, domain: str, address: str) -> None:
        super().__init__(
            domain, 443, timeout=15, context=ssl.create_default_context(cafile=str(settings.CA_CERTIFICATE))
        )
        self.address = address

    def connect(self) -> None:
        raw = socket.create_connection((self.address, self.port), self.timeout)
        self.sock = self._context.wrap_socket(raw, server_hostname=self.host)  # type: ignore[attr-defined]


class Load(threading.Thread):
    """Asks in turns over a kept connection and over a new one, from `with` to its end.

    With `again` a kept connection that the server has just closed is opened anew, as every browser does: a reload of
    nginx closes those that wait, and a request may be on its way there.
    """

    def __init__(self, domain: str, address: str, pause: float = 0.05, *, again: bool = False) -> None:
        super().__init__(daemon=True)
        self.domain, self.address, self.pause, self.again = domain, address, pause, again
        self.seen: list[str] = []
        self.failed: list[str] = []
        #: Seconds for which nobody answered, at most.
        self.gap = 0.0
        self._answered = time.monotonic()
        self._over = threading.Event()
        self._kept: Door | None = None

    def __enter__(self) -> Load:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self.join(30)

    def run(self) -> None:
        while not self._over.is_set():
            self._ask(keep=True)
            self._ask(keep=False)
            self._over.wait(self.pause)

    def _ask(self, keep: bool) -> None:
        door = self._kept if keep and self._kept else Door(self.domain, self.address)
        began = time.strftime("%H:%M:%S")
        try:
            door.request("GET", "/", headers={} if keep else {"Connection": "close"})
            answer = door.getresponse()
            body = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(f"{began} {type(error).__name__}: {error}")
            closed = door is self._kept and isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError))
            door.close()
            self._kept = None
            if closed and self.again:
                self.failed.pop()
                self._ask(keep)
            return
        if answer.status != 200:
            self.failed.append(f"{began} HTTP {answer.status}: {body[:80]}")
        else:
            self.gap = max(self.gap, time.monotonic() - self._answered)
            self._answered = time.monotonic()
        self.seen.append(body)
        if keep and not answer.will_close:
            self._kept = door
        else:
            door.close()
            self._kept = None if keep else self._kept
