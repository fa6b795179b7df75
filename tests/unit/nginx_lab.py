"""Renders the nginx role's files as the role would, and runs a real nginx on them under a directory of its own."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.shipshape.droplet.plugins.filter import nginx as filters

from tests.unit import packaged

ROLE = Path(__file__).parents[2] / "roles" / "nginx"
FACTS = {
    "distribution": "Debian",
    "distribution_version": "12",
    "distribution_major_version": "12",
    "distribution_release": "bookworm",
    "default_ipv4": {"address": "203.0.113.7"},
    "default_ipv6": {},
    "dns": {"nameservers": ["127.0.0.53"]},
}


def trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return value


def role_variables(overrides: dict[str, Any]) -> dict[str, Any]:
    variables: dict[str, Any] = {"ansible_facts": FACTS}
    for folder in ("defaults", "vars"):
        variables.update(trusted(yaml.safe_load((ROLE / folder / "main.yml").read_text())))
    return {**variables, **overrides}


def evaluate(expression: str, overrides: dict[str, Any]) -> Any:
    """A template expression with the role's variables."""
    return Templar(loader=DataLoader(), variables=role_variables(overrides)).template(trust_as_template(expression))


def render(template: str, overrides: dict[str, Any]) -> str:
    """A template of the role, exactly as shipshape.droplet.files renders it."""
    templar = Templar(loader=DataLoader(), variables=role_variables(overrides))
    text = trust_as_template((ROLE / "templates" / template).read_text())
    return str(templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True, "lstrip_blocks": True}))


def render_all(overrides: dict[str, Any]) -> dict[str, str]:
    """Path and text of every file that the role writes."""
    headers = evaluate("{{ nginx_headers }}", overrides)
    entries = list(evaluate("{{ __nginx_files }}", overrides))
    entries += filters.nginx_files(overrides.get("nginx_sites", []), headers)
    return {
        str(entry["path"]): render(str(entry["template"]), {**overrides, **(entry.get("vars") or {})})
        for entry in entries
        if entry.get("template")
    } | {str(entry["path"]): str(entry["content"]) for entry in entries if entry.get("content")}


def nginx_home() -> Path:
    """The root under which nginx lies."""
    # Which of the packages holds the program differs between releases.
    return packaged.home("usr/sbin/nginx", "nginx", "nginx-light", "nginx-common")


def nginx_program() -> str:
    return str(nginx_home() / "usr/sbin/nginx")


_given: set[int] = set()


def free_port() -> int:
    """A port below those that the kernel gives to connections, so that none takes it before nginx does; never twice."""
    while True:
        port = random.randrange(10000, 30000)
        if port in _given:
            continue
        _given.add(port)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def make_certificate(directory: Path, name: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip


class Upstream:
    """An application that remembers what it was asked and answers with chosen headers, on request over TLS."""

    def __init__(
        self, answer: dict[str, str] | None = None, tls: Path | None = None, status: int = 200, delay: float = 0
    ) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.names: list[str | None] = []
        #: The ports that it was asked from: one for each connection.
        self.connections: set[int] = set()
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                upstream.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                upstream.connections.add(self.client_address[1])
                time.sleep(delay)
                self.send_response(status)
                for key, value in (answer or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.do_GET()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
            context.sni_callback = lambda _socket, name, _context: self.names.append(name)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = int(self.server.server_address[1])

    def __enter__(self) -> Upstream:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Nginx:
    """The role's configuration in a directory of its own, on free ports, with one self-signed certificate."""

    def __init__(self, root: Path, overrides: dict[str, Any], trusted: Path | None = None) -> None:
        self.root = root
        self.trusted = trusted or Path("/etc/ssl/certs/ca-certificates.crt")
        self.http, self.https = free_port(), free_port()
        self.metrics = free_port()
        self.files = render_all(
            {
                "nginx_metrics_port": self.metrics,
                "nginx_brotli": False,
                **overrides,
                "nginx_acme_webroot": str(root / "acme"),
            }
        )
        for folder in (
            "etc/shipshape/sites",
            "etc/shipshape/upstreams",
            "etc/shipshape/pages",
            "etc/shipshape/users",
            "etc/conf.d",
            "log",
            "acme",
            "tls",
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(nginx_home() / "etc/nginx/mime.types", root / "etc/mime.types")
        # Where nginx keeps bodies by itself is a directory that only the installed package has.
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {root}/temporary-{kind};\n" for kind in kinds)
        (root / "etc/conf.d/temporary.conf").write_text(paths)
        make_certificate(root / "tls", "test")
        for path, text in self.files.items():
            target = Path(self._moved(path))
            target.write_text(self._moved(text))
        self.config = root / "etc/nginx.conf"

    def _moved(self, text: str) -> str:
        text = text.replace("/etc/nginx/", f"{self.root}/etc/").replace("/var/log/nginx/", f"{self.root}/log/")
        text = text.replace("/run/nginx.pid", f"{self.root}/nginx.pid").replace("user www-data;", "user root;")
        text = re.sub(r"listen (\[::\]:)?80\b", lambda m: f"listen {m[1] or '127.0.0.1:'}{self.http}", text)
        text = re.sub(r"listen (\[::\]:)?443\b", lambda m: f"listen {m[1] or '127.0.0.1:'}{self.https}", text)
        text = re.sub(r" ssl_certificate \S+;", f" ssl_certificate {self.root}/tls/cert.pem;", text)
        text = text.replace("/etc/ssl/certs/ca-certificates.crt", str(self.trusted))
        return re.sub(r" ssl_certificate_key \S+;", f" ssl_certificate_key {self.root}/tls/key.pem;", text)

    def test(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [nginx_program(), "-t", "-c", str(self.config)], capture_output=True, text=True, check=False
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Nginx]:
        process = subprocess.Popen(
            [nginx_program(), "-c", str(self.config), "-g", "daemon off;"], stderr=subprocess.PIPE
        )
        try:
            self._wait(process)
            yield self
        finally:
            process.terminate()
            process.wait(10)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.http), 1):
                return
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            time.sleep(0.02)
        raise AssertionError("nginx did not listen within 10 s")

    def get(
        self, host: str, path: str, *, tls: bool = True, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answer:
        """One request by a given name. Raises OSError or HTTPException when the connection is refused."""
        raw = socket.create_connection(("127.0.0.1", self.https if tls else self.http), 5)
        if tls:
            context = ssl._create_unverified_context()
            raw = context.wrap_socket(raw, server_hostname=host)
        connection = http.client.HTTPConnection(host)
        connection.sock = raw
        try:
            sent = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.all_headers = headers
        self.body = body

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.all_headers if key.lower() == name.lower()]
        assert len(found) < 2, f"{name} was sent {len(found)} times: {found}"
        return found[0] if found else None
