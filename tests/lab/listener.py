"""A webhook next to the droplets, in Slack's form: what it was told is what a test looks at."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import host, trust


@contextmanager
def webhook(folder: Path, droplet_address: str, path: str) -> Iterator[tuple[str, list[str]]]:
    """Its URL, which droplets can reach and whose certificate they trust, and the list of all that it hears."""
    heard: list[str] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if known := self.path == path:
                heard.append(json.loads(body)["text"])
            self.send_response(200 if known else 404)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    gateway = host.seen_from(droplet_address)
    certificate, key = trust.certificate(gateway)
    kept = folder / "webhook.pem"
    trust.write_secret(kept, certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kept)
    server = http.server.ThreadingHTTPServer((gateway, 0), Listener)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://{gateway}:{server.server_address[1]}{path}", heard
    finally:
        server.shutdown()
