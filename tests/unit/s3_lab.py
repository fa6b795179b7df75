"""A real S3 store (rclone over a directory) behind TLS of its own, which on demand answers as providers' stores do."""

from __future__ import annotations

import http.client
import http.server
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.nginx_lab import free_port

KEYS = {"access_key": "ACCESSKEY1", "secret_key": "secret-of-the-store"}
ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
#: Status, code and message by method and path, or None for what the store itself answers.
Fault = Callable[[str, str], tuple[int, str, str] | None]


def certificate(folder: Path, begins: timedelta, ends: timedelta) -> Path:
    """Key and certificate of this machine in one file, valid from and to so long from now; it is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"store-{made.serial_number}.pem"
    path.write_bytes(plain + made.public_bytes(pem))
    return path


class Store:
    """What a test changes while it runs: the fault that the next requests meet, and the certificate."""

    def __init__(self, port: int, certificate: Path, context: ssl.SSLContext) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.certificate = certificate
        self._context = context
        self.fault: Fault = lambda method, path: None
        #: While it is set, the store says nothing to anybody, as where packets vanish on the way.
        self.silent = threading.Event()

    def show(self, certificate: Path) -> None:
        """From the next connection on."""
        self._context.load_cert_chain(certificate)
        self.certificate = certificate


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not like the certificate, or is stopped, is what tests are about."""


@contextmanager
def store(directory: Path, folder: Path) -> Iterator[Store]:
    """The folders of `directory` as buckets."""
    inner, outer = free_port(), free_port()
    rclone = str(Path(sys.executable).with_name("rclone"))
    command = [rclone, "serve", "s3", str(directory), "--addr", f"127.0.0.1:{inner}"]
    login = {"RCLONE_AUTH_KEY": f'"{KEYS["access_key"]},{KEYS["secret_key"]}"', "RCLONE_CONFIG": "/dev/null"}
    with (folder / "rclone.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **login}, stdout=log, stderr=log)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown = Store(outer, certificate(folder, timedelta(-1), timedelta(1)), context)
    context.load_cert_chain(shown.certificate)
    server = Server(("127.0.0.1", outer), _handler(inner, shown))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        _wait(inner, process)
        yield shown
    finally:
        server.shutdown()
        server.server_close()
        process.terminate()
        process.wait(10)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/")
            connection.getresponse()
            return
        except OSError:
            assert process.poll() is None, "rclone ended"
            time.sleep(0.05)
    raise AssertionError("rclone does not answer")


def _handler(inner: int, shown: Store) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # an answer is sent in two parts

        def setup(self) -> None:
            self.stay_silent()
            super().setup()

        def stay_silent(self) -> None:
            """For as long as a client waits; then the connection is closed without an answer."""
            if shown.silent.is_set():
                while shown.silent.is_set():
                    time.sleep(0.02)
                raise ConnectionAbortedError

        def answer(self) -> None:
            self.stay_silent()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = shown.fault(self.command, self.path)
            if fault:
                self.reply(
                    fault[0],
                    ERROR.format(code=fault[1], message=fault[2]).encode(),
                    {"Content-Type": "application/xml"},
                )
                return
            connection = http.client.HTTPConnection("127.0.0.1", inner, timeout=30)
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            self.reply(response.status, response.read(), dict(response.getheaders()))
            connection.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response_only(status)
            length = headers.pop("Content-Length", str(len(body)))
            headers.pop("Transfer-Encoding", None)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
