"""Runs a real Traefik on the configuration that the traefik role's filters make, under a directory of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.shipshape.droplet.plugins.filter import traefik as filters
from ansible_collections.shipshape.droplet.plugins.plugin_utils.site import whole_domains

from tests.unit.nginx_lab import Answer, free_port, make_certificate, nginx_home, nginx_program, trusted

ROLE = Path(__file__).parents[2] / "roles" / "traefik"
PROGRAM = Path(sys.executable).with_name("traefik")


def settings(**more: Any) -> dict[str, Any]:
    """The role's defaults, as its own variables hand them to the filters."""
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    names = [name for name in yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__traefik_settings"]]
    return {**{name: defaults.get(f"traefik_{name}", []) for name in names}, **more}


def render_files(sites: list[dict[str, Any]], **overrides: Any) -> str:
    """The file server's configuration, as shipshape.droplet.files renders it."""
    variables: dict[str, Any] = {"ansible_facts": {}, "traefik_sites": sites, **overrides}
    for folder in ("defaults", "vars"):
        variables = {**trusted(yaml.safe_load((ROLE / folder / "main.yml").read_text())), **variables}
    text = trust_as_template((ROLE / "templates" / "files.conf.j2").read_text())
    templar = Templar(loader=DataLoader(), variables=variables)
    return str(templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True, "lstrip_blocks": True}))


class Traefik:
    """The role's configuration in a directory of its own, on free ports, with one self-signed certificate."""

    def __init__(
        self, root: Path, sites: Iterable[dict[str, Any]], trusted_root: Path | None = None, **more: Any
    ) -> None:
        self.root = root
        self.log = root / "traefik.log"
        self.trusted_root = trusted_root
        self.http, self.https, self.api, metrics = free_port(), free_port(), free_port(), free_port()
        self.dynamic = root / "dynamic"
        self.dynamic.mkdir()
        self.files_port = int(more.pop("files_port", 0)) or free_port()
        self.settings = settings(metrics_port=metrics, files_port=self.files_port, **more)
        static = filters.traefik_static(self.settings)
        static["api"] = {"insecure": True, "dashboard": False}
        static["entryPoints"]["traefik"] = {"address": f"127.0.0.1:{self.api}"}
        for entry_point, port in (("web", self.http), ("websecure", self.https)):
            static["entryPoints"][entry_point]["address"] = f"127.0.0.1:{port}"
        text = yaml.safe_dump(static).replace(filters.DYNAMIC, str(self.dynamic))
        text = text.replace("/var/lib/traefik", str(root)).replace("/var/log/traefik", str(root))
        self.config = root / "traefik.yml"
        self.config.write_text(text)
        self.sites = sites = list(sites)
        (root / "pages").mkdir()
        for entry in filters.traefik_files(sites, self.settings):
            name = Path(entry["path"]).name
            if name.endswith(".yml"):
                (self.dynamic / name).write_text(entry["content"])
            elif name.endswith(".html"):
                (root / "pages" / name).write_text(entry["content"])
        names = [str(name) for site in sites for name in (*whole_domains(site), *site.get("redirect_domains", []))]
        pairs = [self._certificate(name) for name in names]
        if pairs:
            store = {"default": {"defaultCertificate": pairs[0]}}
            self.write("tls-test.yml", {"tls": {"certificates": pairs, "stores": store}})

    def _certificate(self, name: str) -> dict[str, str]:
        directory = self.root / "tls" / name
        directory.mkdir(parents=True)
        make_certificate(directory, name)
        return {"certFile": str(directory / "cert.pem"), "keyFile": str(directory / "key.pem")}

    @contextlib.contextmanager
    def file_server(self) -> Iterator[None]:
        """The nginx behind it that has the pages and files."""
        text = render_files(self.sites, traefik_files_port=self.files_port)
        text = text.replace("/etc/nginx/", f"{nginx_home()}/etc/nginx/").replace("/etc/traefik/", f"{self.root}/")
        config = self.root / "files.conf"
        config.write_text(f"user root;\n{text}")
        words = [nginx_program(), "-p", f"{self.root}/", "-c", str(config), "-g", "daemon off;"]
        process = subprocess.Popen(words, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.files_port), 1):
                    break
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait(10)

    def write(self, name: str, value: Any) -> None:
        """As the droplet's own program does it: by one rename."""
        temporary = self.dynamic / f".{name}.new"
        temporary.write_text(filters.to_text(value))
        temporary.rename(self.dynamic / name)

    @contextlib.contextmanager
    def running(self) -> Iterator[Traefik]:
        environment = {"SSL_CERT_FILE": str(self.trusted_root)} if self.trusted_root else {}
        with self.log.open("w") as log:
            process = subprocess.Popen(
                [str(PROGRAM), f"--configfile={self.config}"], stdout=log, stderr=log, env=environment
            )
        try:
            self._wait(process)
            yield self
        finally:
            process.kill()
            process.wait(10)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            assert process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                self.ask("middlewares/shipshape-compress@file")
                # It takes up one entry point after another, and the one that was just asked is not the last.
                time.sleep(0.2)
                return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def ask(self, what: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.api}/api/http/{what}", timeout=2) as answer:
            return json.load(answer)

    def errors(self) -> list[str]:
        """What it logged at level error, and all that its own interface calls faulty."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        found = [str(line) for line in lines if line["level"] in ("error", "fatal")]
        for kind in ("routers", "services", "middlewares"):
            found += [str(row) for row in self.ask(f"{kind}?per_page=1000") if row["status"] != "enabled"]
        return found

    def get(
        self,
        host: str,
        path: str,
        *,
        tls: bool = True,
        method: str = "GET",
        body: bytes | None = None,
        raw: dict[str, str] | None = None,
        **headers: str,
    ) -> Answer:
        connection = http.client.HTTPConnection(host)
        connection.sock = socket.create_connection(("127.0.0.1", self.https if tls else self.http), 5)
        if tls:
            context = ssl._create_unverified_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        try:
            sent = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}, **(raw or {})}
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()
