"""DigitalOcean's API for DNS, the name server of its zones, and an authority that asks that one: started on demand.

Whatever resolves names by it (`nameserver 10.77.0.6`) finds the zones' records, and all names of the lab as before.
The authority is https://ca.wild.test/acme/local/directory, and https://minutes.wild.test/acme/local/directory one whose
certificates last for minutes; the account's token is in `.lab/dns.json`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import tempfile
import time
from pathlib import Path

from tests.lab import droplet, settings, trust
from tests.lab.engine import LabError, docker, ensure_network, exclusive, image_label, inspect, stage
from tests.lab.image import DIGEST, ensure_image
from tests.lab.services import installed

BUILD = Path(__file__).parent / "dns-image"
NAME, ADDRESS = settings.DNS, settings.DNS_ADDRESS
API = "api.digitalocean.com"
AUTHORITIES = ("ca.wild.test", "minutes.wild.test")
ZONES = ("wild.test", "other.test")
READY_TIMEOUT = 30
PROBES = {f"https://{name}/acme/local/directory": "200" for name in AUTHORITIES} | {f"https://{API}/v2/domains": "401"}


def ensure_dns() -> None:
    """Start them unless they run."""
    trust.ensure_keys()
    with exclusive("dns"):
        image = _ensure_image()
        ensure_network()
        with stage("dns"):
            found = inspect("container", NAME)
            if found and found["Config"]["Labels"].get(DIGEST) != _identity(image):
                docker("rm", "--force", "--volumes", NAME)
                found = None
            if found is None:
                _create(image)
            docker("start", NAME)
            _wait_until_ready()


def token() -> str:
    """What the account's API is asked with."""
    if not settings.DNS_ACCOUNT.exists():
        made = {"token": "dop_v1_" + secrets.token_hex(32)}
        trust.write_secret(settings.DNS_ACCOUNT, json.dumps(made).encode() + b"\n")
    found: str = json.loads(settings.DNS_ACCOUNT.read_text(encoding="utf-8"))["token"]
    return found


def _ensure_image() -> str:
    name = f"{NAME}:latest"
    base = ensure_image(settings.DEFAULT_RELEASE)
    caddy = installed("caddy")
    files = [path.read_bytes() for path in sorted(BUILD.iterdir()) if path.is_file()]
    made_of = [(image_label(base, DIGEST) or "").encode(), str(caddy.stat().st_size).encode(), *files]
    digest = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
    if image_label(name, DIGEST) != digest:
        with stage("dns image"), tempfile.TemporaryDirectory() as context:
            shutil.copytree(BUILD, context, dirs_exist_ok=True)
            Path(context, "bin").mkdir()
            shutil.copy(caddy, Path(context, "bin/caddy"))
            labels = ("--label", settings.LABEL, "--label", f"{DIGEST}={digest}")
            docker("build", "--tag", name, *labels, "--build-arg", f"BASE={base}", context)
    return name


def _identity(image: str) -> str:
    """Which image, authority and token a container was made with."""
    made_of = (image_label(image, DIGEST) or "").encode() + settings.CA_CERTIFICATE.read_bytes()
    return hashlib.sha256(made_of + token().encode()).hexdigest()[:16]


def _create(image: str) -> None:
    labels = (f"--label={settings.LABEL}", f"--label={DIGEST}={_identity(image)}")
    names = (*(f"--network-alias={name}" for name in (API, *AUTHORITIES)), f"--hostname={NAME}")
    docker("create", f"--name={NAME}", *labels, f"--network={settings.NETWORK}", f"--ip={ADDRESS}", *names, image)
    account = {"token": token(), "zones": ZONES, "address": ADDRESS}
    droplet.put(
        NAME,
        {
            "etc/lab/ca/root.crt": (settings.CA_CERTIFICATE.read_bytes(), 0o644),
            "etc/lab/ca/root.key": (settings.CA_KEY.read_bytes(), 0o600),
            "etc/lab/account.json": (json.dumps(account).encode(), 0o600),
        },
    )


def _wait_until_ready() -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    found: dict[str, str] = {}
    while time.monotonic() < deadline:
        found = {url: _status_of(url) for url in PROBES}
        if found == PROBES:
            return
        time.sleep(0.2)
    said = docker("logs", "--tail=20", NAME, check=False)
    raise LabError(f"the name server is not ready: wanted {PROBES}, got {found}\n{said}")


def _status_of(url: str) -> str:
    host = url.split("/")[2]
    probe = ("curl", "--silent", "--output", "/dev/null", "--max-time", "5", "--write-out", "%{http_code}")
    trusted = ("--cacert", "/etc/lab/ca/root.crt", "--resolve", f"{host}:443:127.0.0.1")
    return docker("exec", NAME, *probe, *trusted, url, check=False)
