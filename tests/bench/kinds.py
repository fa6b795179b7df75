"""The types of apps that are measured: one line each in KINDS."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import registry, repository

FILES = Path(__file__).parent / "files"
DOMAIN = "bench.test"
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Bench app</title>
<p>Bench app, version {version}</p>
"""


@dataclass(frozen=True)
class Kind:
    """What the inventory says of an app beside its type, domain and (without an image) git source, and how it gets a
    new version.

    `publish` is given the app's name and the version. The app then shows both `Bench app` and the version at `/`.
    """

    entry: Mapping[str, Any]
    publish: Callable[[str, str], None]


def name_of(kind: str) -> str:
    return f"bench-{kind}"


def domain_of(kind: str) -> str:
    return f"{kind}.{DOMAIN}"


def declared(kind: str) -> dict[str, Any]:
    """The app as the inventory has it."""
    entry = KINDS[kind].entry
    source = {"git": f"https://git.test/{name_of(kind)}.git", "version": repository.BRANCH}
    return {"type": kind, "domains": [domain_of(kind)], **({} if "image" in entry else {"source": source}), **entry}


def _committed(fill: Callable[[Path, str], None]) -> Callable[[str, str], None]:
    """Publish as a new commit what `fill` makes of a version."""

    def publish(name: str, version: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), version)
            repository.publish(Path(folder), name)

    return publish


def _python(folder: Path, version: str) -> None:
    shutil.copy(FILES / "shop.py", folder)
    (folder / "VERSION").write_text(f"{version}\n", encoding="utf-8")


def _static(folder: Path, version: str) -> None:
    (folder / "index.html").write_text(PAGE.format(version=version), encoding="utf-8")


def _compose(folder: Path, version: str) -> None:
    """The shop in an image that is built of the lab's, and a service beside it that stays as it is."""
    _python(folder, version)
    base = f"{registry.DOMAIN}:{registry.OPEN_PORT}/{registry.REPOSITORY}:v1"
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY shop.py VERSION /app/\n", encoding="utf-8")
    store = {"image": base, "command": ["python3", "-c", "import time; time.sleep(1e6)"], "init": True}
    # Python as the first process of a container would not hear that it is to end.
    web = {"build": ".", "command": "python3 shop.py --host 0.0.0.0 --port 8000", "depends_on": ["store"], "init": True}
    (folder / "compose.yml").write_text(json.dumps({"services": {"web": web, "store": store}}), encoding="utf-8")


def _composed(name: str, version: str) -> None:
    registry.ensure_registry()
    _committed(_compose)(name, version)


def _pushed(_name: str, version: str) -> None:
    """Publish as the same tag with another image behind it."""
    registry.ensure_registry([f"bench={version}"])


#: The lab's image shows its environment.
IMAGE = {
    "image": f"{registry.DOMAIN}:{registry.OPEN_PORT}/{registry.REPOSITORY}:bench",
    "container_port": 8000,
    "health": "/health",
    "env": {"TITLE": "Bench app"},
}
FILE = {"service": "web", "container_port": 8000, "health": "/"}
SHOP = {"command": "python3 shop.py --host $HOST --port $PORT", "health": "/", "database": {}}
KINDS = {
    "python": Kind(SHOP, _committed(_python)),
    "container": Kind(IMAGE, _pushed),
    "compose": Kind(FILE, _composed),
    "static": Kind({}, _committed(_static)),
}
