"""The services container: an ACME authority, an S3 store and git over HTTPS, all of them of one authority."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.lab import droplet, settings, trust
from tests.lab.engine import LabError, docker, ensure_network, exclusive, image_label, inspect, stage
from tests.lab.image import DIGEST, ensure_image

BUILD = Path(__file__).parent / "services-image"
PROGRAMS = ("caddy", "rclone")
READY_TIMEOUT = 60
# One request each that only succeeds when the service itself answers: S3 refuses what is
# not signed, git knows no such repository.
PROBES = {
    "https://ca.test/acme/local/directory": "200",
    "https://s3.test/": "400",
    "https://git.test/none.git/info/refs?service=git-upload-pack": "404",
}


def ensure_services() -> None:
    """Start them unless they run; what they store lasts until the container is made anew."""
    trust.ensure_keys()
    with exclusive("services"):
        image = _ensure_image()
        ensure_network()
        with stage("services"):
            if _is_outdated(image):
                droplet.remove(settings.SERVICES)
            if inspect("container", settings.SERVICES) is None:
                _create(image)
            docker("start", settings.SERVICES)
            droplet.wait_for_boot(settings.SERVICES)
            _wait_until_ready()


def _ensure_image() -> str:
    name = f"{settings.SERVICES}:latest"
    base = ensure_image(settings.DEFAULT_RELEASE)
    digest = _digest(image_label(base, DIGEST) or "")
    if image_label(name, DIGEST) == digest:
        return name
    with stage("services image"), tempfile.TemporaryDirectory() as context:
        shutil.copytree(BUILD, context, symlinks=True, dirs_exist_ok=True)
        binaries = Path(context, "bin")
        binaries.mkdir()
        for program in PROGRAMS:
            shutil.copy(installed(program), binaries / program)
        labels = ("--label", settings.LABEL, "--label", f"{DIGEST}={digest}")
        docker("build", "--tag", name, *labels, "--build-arg", f"BASE={base}", context)
    return name


def _digest(base: str) -> str:
    digest = hashlib.sha256(base.encode())
    for path in sorted(BUILD.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(BUILD)).encode() + path.read_bytes())
    for program in PROGRAMS:
        digest.update(str(installed(program).stat().st_size).encode())
    return digest.hexdigest()[:16]


def installed(program: str) -> Path:
    """The binary that came in a wheel with this interpreter's environment."""
    path = Path(sys.executable).with_name(program)
    if not path.exists():
        raise LabError(f"{path} is missing: run `make setup`")
    return path


def _identity(image: str) -> str:
    """Which image, authority and keys a container was made with."""
    digest = hashlib.sha256((image_label(image, DIGEST) or "").encode())
    digest.update(settings.CA_CERTIFICATE.read_bytes() + settings.S3_KEYS.read_bytes())
    return digest.hexdigest()[:16]


def _is_outdated(image: str) -> bool:
    container = inspect("container", settings.SERVICES)
    return container is not None and container["Config"]["Labels"].get(DIGEST) != _identity(image)


def _create(image: str) -> None:
    droplet.create(
        settings.SERVICES,
        image,
        address=settings.SERVICES_ADDRESS,
        aliases=settings.SERVICES_DOMAINS,
        labels={DIGEST: _identity(image)},
    )
    droplet.put(
        settings.SERVICES,
        {
            **droplet.first_boot_files(),
            "etc/lab/ca/root.crt": (settings.CA_CERTIFICATE.read_bytes(), 0o644),
            "etc/lab/ca/root.key": (settings.CA_KEY.read_bytes(), 0o600),
            "etc/lab/s3.env": (_s3_environment().encode(), 0o600),
        },
    )


def _s3_environment() -> str:
    keys = trust.s3_keys()
    # Quoted for rclone as well as for systemd: rclone reads a list here, and the comma within a pair would split it.
    return f"RCLONE_AUTH_KEY='\"{keys['access_key']},{keys['secret_key']}\"'\n"


def _wait_until_ready() -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    waiting = dict(PROBES)
    while waiting and time.monotonic() < deadline:
        waiting = {url: status for url, status in waiting.items() if _status_of(url) != status}
        if waiting:
            time.sleep(0.5)
    if waiting:
        found = "\n".join(f"{url}: wanted {status}, got {_status_of(url)}" for url, status in waiting.items())
        units = docker(
            "exec", settings.SERVICES, "systemctl", "status", "--no-pager", "--lines=5", "lab-*", check=False
        )
        raise LabError(f"the services are not ready:\n{found}\n{units}")


def _status_of(url: str) -> str:
    probe = ("curl", "--silent", "--output", "/dev/null", "--max-time", "5", "--write-out", "%{http_code}", url)
    return docker("exec", settings.SERVICES, *probe, check=False)
