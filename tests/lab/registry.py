"""A container registry with a small image in it, started on demand: no other registry has to be reached.

https://registry.test asks for the login of `.lab/registry.json`, https://registry.test:5000 for none; both have the
same images. `ocr` is a service of Python's standard library, on a Python taken from the droplet image.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import secrets
import socket
import ssl
import subprocess
import tarfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.lab import droplet, settings, trust
from tests.lab.engine import LabError, docker, ensure_network, exclusive, image_label, inspect, stage
from tests.lab.image import DIGEST, ensure_image

BUILD = Path(__file__).parent / "registry-image"
NAME, ADDRESS, DOMAIN = settings.REGISTRY, settings.REGISTRY_ADDRESS, settings.REGISTRY_DOMAIN
OPEN_PORT = 5000
LAYERS = settings.STATE / "registry"
READY_TIMEOUT = 30

REPOSITORY = "ocr"
#: What is there from the start: version and behaviour by tag. `sick` answers 500 on its health path.
IMAGES = {"v1": ("1.0", "good"), "v2": ("2.0", "good"), "crash": ("3.0", "crash"), "sick": ("4.0", "sick")}
WAYS = ("good", "crash", "sick")

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# Python, a shell and what both load, out of the droplet image: nothing is downloaded for it.
COLLECT = r"""
python=$(realpath /usr/bin/python3) standard=$(echo /usr/lib/python3.*/lib-dynload)
libraries=$(ldd "$python" /bin/sh "$standard"/*.so | grep -o '/lib[^ ]*' | grep -v ':$' | grep -v dynload | sort -u)
exec tar --create --dereference --absolute-names --exclude=__pycache__ --exclude='*/test' --exclude='*/idlelib' \
  --exclude='*/dist-packages' "$python" /bin/sh $libraries /lib/*/libgcc_s.so.1 "${standard%/*}"
"""


def ensure_registry(images: Sequence[str] = ()) -> None:
    """Start it unless it runs, with its images and those of `images`, each TAG=VERSION or TAG=VERSION:WAY."""
    trust.ensure_keys()
    with exclusive("registry"):
        image = _ensure_image()
        ensure_network()
        with stage("registry"):
            found = inspect("container", NAME)
            if found and found["Config"]["Labels"].get(DIGEST) != _identity(image):
                docker("rm", "--force", "--volumes", NAME)
                found = None
            if found is None:
                _create(image)
            docker("start", NAME)
            _wait_until_ready()
            for tag, (version, way) in {**IMAGES, **dict(map(_meant, images))}.items():
                _push(tag, version, way)


def login() -> dict[str, str]:
    """Who may fetch images at the door that asks."""
    if not settings.REGISTRY_LOGIN.exists():
        made = {"username": "fetcher", "password": "s3cret-" + secrets.token_urlsafe(24)}
        trust.write_secret(settings.REGISTRY_LOGIN, json.dumps(made).encode() + b"\n")
    found: dict[str, str] = json.loads(settings.REGISTRY_LOGIN.read_text(encoding="utf-8"))
    return found


def _meant(word: str) -> tuple[str, tuple[str, str]]:
    tag, _, rest = word.partition("=")
    version, _, way = rest.partition(":")
    if not tag or not version or (way or "good") not in WAYS:
        raise LabError(f"{word!r} is no image: TAG=VERSION or TAG=VERSION:WAY, with one of the ways {', '.join(WAYS)}")
    return tag, (version, way or "good")


# ---- the container


def _ensure_image() -> str:
    name = f"{NAME}:latest"
    base = ensure_image(settings.DEFAULT_RELEASE)
    files = [path.read_bytes() for path in sorted(BUILD.iterdir()) if path.name != "ocr.py"]
    digest = hashlib.sha256(b"\0".join([(image_label(base, DIGEST) or "").encode(), *files])).hexdigest()[:16]
    if image_label(name, DIGEST) != digest:
        with stage("registry image"):
            labels = ("--label", settings.LABEL, "--label", f"{DIGEST}={digest}")
            docker("build", "--tag", name, *labels, "--build-arg", f"BASE={base}", str(BUILD))
    return name


def _identity(image: str) -> str:
    """Which image, authority and login a container was made with."""
    made_of = (image_label(image, DIGEST) or "").encode() + settings.CA_CERTIFICATE.read_bytes()
    return hashlib.sha256(made_of + json.dumps(login()).encode()).hexdigest()[:16]


def _create(image: str) -> None:
    labels = (f"--label={settings.LABEL}", f"--label={DIGEST}={_identity(image)}")
    place = (f"--network={settings.NETWORK}", f"--ip={ADDRESS}", f"--network-alias={DOMAIN}", f"--hostname={NAME}")
    docker("create", f"--name={NAME}", *labels, *place, "--volume=/var/lib/registry", image)
    certificate, key = trust.certificate(DOMAIN)
    account = "{username}:{password}".format(**login())
    droplet.put(
        NAME,
        {
            "etc/lab/registry.crt": (certificate, 0o644),
            "etc/lab/registry.key": (key, 0o600),
            "etc/lab/login": (account.encode(), 0o600),
        },
    )


def _wait_until_ready() -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    wanted = {OPEN_PORT: 200, 443: 401}
    answers: dict[int, str] = {}
    while time.monotonic() < deadline:
        for port in wanted:
            try:
                answers[port] = str(_ask("GET", "/v2/", port=port)[0])
            except (OSError, http.client.HTTPException) as error:
                answers[port] = str(error)
        if answers == {port: str(status) for port, status in wanted.items()}:
            return
        time.sleep(0.2)
    said = docker("logs", "--tail=20", NAME, check=False)
    raise LabError(f"the registry is not ready: wanted {wanted}, got {answers}\n{said}")


# ---- its images


class _Door(http.client.HTTPSConnection):
    """The registry by its address, since this machine need not know its name; the certificate is checked by name."""

    def connect(self) -> None:
        context = ssl.create_default_context(cafile=str(settings.CA_CERTIFICATE))
        self.sock = context.wrap_socket(socket.create_connection((ADDRESS, self.port), 10), server_hostname=DOMAIN)


def _ask(
    method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream", port: int = OPEN_PORT
) -> tuple[int, dict[str, str]]:
    with contextlib.closing(_Door(DOMAIN, port)) as door:
        headers = {"Content-Type": kind, "Accept": MANIFEST}
        door.request(method, path, body=body if method in ("PUT", "POST") else None, headers=headers)
        answer = door.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def _push(tag: str, version: str, way: str) -> None:
    layers = [_python_layer(), _app_layer(version, way)]
    config = json.dumps(_config(layers), sort_keys=True).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor("application/vnd.docker.container.image.v1+json", config),
            "layers": [_descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", layer) for layer in layers],
        },
        sort_keys=True,
    ).encode()
    path = f"/v2/{REPOSITORY}/manifests/{tag}"
    if _ask("HEAD", path)[1].get("docker-content-digest") == _digest(manifest):
        return
    for blob in (*layers, config):
        _push_blob(blob)
    status, _headers = _ask("PUT", path, manifest, MANIFEST)
    if status != 201:
        raise LabError(f"the registry answers {status} to the image {REPOSITORY}:{tag}")


def _push_blob(blob: bytes) -> None:
    if _ask("HEAD", f"/v2/{REPOSITORY}/blobs/{_digest(blob)}")[0] == 200:
        return
    status, headers = _ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
    if status == 202:
        place = "/" + headers["location"].partition("://")[2].partition("/")[2]
        status, _headers = _ask("PUT", f"{place}&digest={_digest(blob)}", blob)
    if status != 201:
        raise LabError(f"the registry answers {status} to a layer of {len(blob)} bytes")


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(content), "digest": _digest(content)}


def _config(layers: Iterable[bytes]) -> dict[str, Any]:
    return {
        "architecture": _architecture(),
        "os": "linux",
        "config": {
            "User": "1000:1000",
            "WorkingDir": "/app",
            "Env": ["PATH=/usr/bin", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"],
            "Cmd": ["python3", "/app/server.py"],
        },
        "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(layer)) for layer in layers]},
        "history": [],
    }


def _architecture() -> str:
    return docker("version", "--format={{.Server.Arch}}")


def _python_layer() -> bytes:
    """Made once for a droplet image, and kept."""
    base = ensure_image(settings.DEFAULT_RELEASE)
    made_of = (image_label(base, DIGEST) or "") + COLLECT
    path = LAYERS / f"python-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.tar.gz"
    if not path.exists():
        with stage("a Python for images"):
            collect = ["docker", "run", "--rm", "--network=none", "--entrypoint=/bin/sh", base, "-euc", COLLECT]
            done = subprocess.run(collect, capture_output=True, check=False)
            if done.returncode != 0:
                raise LabError(f"no Python could be taken from {base}:\n{done.stderr.decode(errors='replace')}")
            LAYERS.mkdir(exist_ok=True)
            unfinished = path.with_suffix(".new")
            unfinished.write_bytes(_tidied(done.stdout))
            unfinished.replace(path)
    return path.read_bytes()


def _tidied(found: bytes) -> bytes:
    """The same files below one /usr, with what a system has beside them."""
    layer = _Layer()
    for name in ("bin", "lib", "lib64", "sbin"):
        layer.link(name, f"usr/{name}")
    with tarfile.open(fileobj=io.BytesIO(found)) as tar:
        for entry in tar:
            name = entry.name.lstrip("/")
            name = name if name.startswith("usr/") else f"usr/{name}"
            if entry.isdir():
                layer.directory(name)
                continue
            stream = tar.extractfile(entry)
            if stream is None:
                continue  # a second name of a file that is there already
            layer.file(name, stream.read(), entry.mode)
            if name.startswith("usr/bin/python3."):
                layer.link("usr/bin/python3", name.rpartition("/")[2])
    layer.directory("tmp", 0o1777)
    layer.file("etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1000:1000::/app:/bin/sh\n")
    layer.file("etc/group", b"root:x:0:\napp:x:1000:\n")
    return layer.packed()


def _app_layer(version: str, way: str) -> bytes:
    layer = _Layer()
    layer.file("app/server.py", (BUILD / "ocr.py").read_bytes())
    layer.file("app/VERSION", f"{version} {way}\n".encode())
    for number, table in enumerate(("scans", "pages") if version.startswith("2.") else ("scans",), start=1):
        layer.file(f"app/migrations/{number:03}_{table}.sql", f"CREATE TABLE {table} (id int);\n".encode())
        layer.file(f"app/migrations/{number:03}_{table}.down.sql", f"DROP TABLE {table};\n".encode())
    layer.directory("data", 0o755, owner=1000)
    return layer.packed()


class _Layer:
    """A layer of an image: the same content makes the same bytes."""

    def __init__(self) -> None:
        self.content = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.content, mode="w")  # noqa: SIM115 (closed by `packed`)

    def _add(self, name: str, kind: bytes, mode: int, content: bytes = b"", target: str = "", owner: int = 0) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), target
        entry.uid = entry.gid = owner
        self.tar.addfile(entry, io.BytesIO(content))

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._add(name, tarfile.REGTYPE, mode, content)

    def directory(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        self._add(name, tarfile.DIRTYPE, mode, owner=owner)

    def link(self, name: str, target: str) -> None:
        self._add(name, tarfile.SYMTYPE, 0o777, target=target)

    def packed(self) -> bytes:
        self.tar.close()
        return gzip.compress(self.content.getvalue(), compresslevel=6, mtime=0)
