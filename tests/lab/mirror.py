"""What GitHub publishes of a Traefik release, next to the droplets: the program is that of this environment."""

from __future__ import annotations

import functools
import hashlib
import http.server
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.lab import host, settings


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def traefik(folder: Path, droplet_address: str) -> Iterator[str]:
    """The address of a mirror that droplets can reach, for `traefik_mirror`."""
    defaults = yaml.safe_load((settings.PROJECT / "roles/traefik/defaults/main.yml").read_text(encoding="utf-8"))
    version = defaults["traefik_version"]
    archive = folder / f"traefik_v{version}_linux_amd64.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as bundle:
        bundle.add(Path(sys.executable).with_name("traefik"), "traefik")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (folder / f"traefik_v{version}_checksums.txt").write_text(f"{digest}  {archive.name}\n", encoding="utf-8")
    gateway = host.seen_from(droplet_address)
    server = http.server.ThreadingHTTPServer((gateway, 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{gateway}:{server.server_address[1]}"
    finally:
        server.shutdown()
