"""A WebSocket that is open while an app changes over: through a real nginx and a real Traefik."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.filter import traefik as filters

from tests.unit.nginx_lab import Nginx
from tests.unit.traefik_lab import Traefik


class Release:
    """A release that takes up each WebSocket, and then says its colour as often as it is told something."""

    def __init__(self, colour: str) -> None:
        self.colour = colour
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self.listener.accept()
                self.open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            while connection.recv(1000):
                connection.sendall(self.colour.encode())

    def stop(self) -> None:
        self.listener.close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Visitor:
    """An open WebSocket; what goes over it is the two ends' own affair."""

    def __init__(self, port: int, path: str) -> None:
        plain = socket.create_connection(("127.0.0.1", port), 10)
        self.connection = ssl._create_unverified_context().wrap_socket(plain, server_hostname="d.test")
        self.connection.sendall(
            (
                f"GET {path} HTTP/1.1\r\nHost: d.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hpcHNoYXBlIHRlc3QhIQ==\r\n\r\n"
            ).encode()
        )
        self.stream = self.connection.makefile("rb")
        assert b" 101 " in self.stream.readline()
        while self.stream.readline().strip():
            pass

    def hears(self) -> str:
        """From which colour; nothing when the connection is closed."""
        try:
            self.connection.sendall(b"?")
            return self.stream.read1(1000).decode()
        except OSError:
            return ""


@contextlib.contextmanager
def switching(proxy: str, root: Path, site: dict[str, Any], blue: Release, green: Release) -> Iterator[Any]:
    """The proxy with the site, as its port and what makes it lead to green."""
    upstreams = {colour.colour: [f"127.0.0.1:{colour.port}"] for colour in (blue, green)}
    said: dict[str, Any] = {"upstreams": upstreams["blue"], "websockets": ["/ws"]}
    owner = {"name": "d.test", "domains": ["d.test"], "empty": True}
    if proxy == "nginx":
        flag = root / "api.green"
        said["green"] = {"upstreams": upstreams["green"], "flag": str(flag)}
        variables = {"nginx_sites": [{**site, "proxy": said}, owner], "nginx_resolvers": []}
        with Nginx(root, variables).running() as nginx:
            yield nginx.https, flag.touch
        return
    traefik = Traefik(root, [{**site, "proxy": said}, owner])
    with traefik.running():
        # As the droplet's own program does it.
        yield traefik.https, lambda: traefik.write("live-api.yml", filters.traefik_service("api", upstreams["green"]))


@pytest.mark.parametrize("proxy", ["nginx", "traefik"])
def test_an_open_websocket_outlives_the_switch_until_its_release_ends(proxy: str, tmp_path: Path) -> None:
    blue, green = Release("blue"), Release("green")
    site = {"name": "api", "domains": ["d.test/api"], "strip": True}
    with switching(proxy, tmp_path, site, blue, green) as (port, switch):
        old = Visitor(port, "/api/ws")
        assert old.hears() == "blue"
        switch()
        # A new one gets the new release, as soon as the proxy has heard of it.
        deadline = time.monotonic() + 10
        while (new := Visitor(port, "/api/ws")).hears() != "green":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (old.hears(), new.hears()) == ("blue", "green")
        # What a deploy does at the drain limit.
        blue.stop()
        assert (old.hears(), new.hears()) == ("", "green")
    green.stop()
