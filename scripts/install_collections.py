#!/usr/bin/env python3
"""Install the collections of requirements.yml: from Galaxy, or out of the PyPI package that carries them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[1]
REQUIREMENTS = PROJECT / "requirements.yml"
LOCK = PROJECT / "scripts" / "collections.lock"
TARGET = PROJECT / "collections"
# Long enough for a slow Galaxy, short enough where a firewall swallows what is sent there.
REQUEST_TIMEOUT = 10
GALAXY_TIMEOUT = 60


def wanted() -> dict[str, str]:
    """Collection -> version."""
    listed = yaml.safe_load(REQUIREMENTS.read_text(encoding="utf-8"))["collections"]
    return {collection["name"]: str(collection["version"]) for collection in listed}


def folder(collection: str) -> Path:
    return TARGET / "ansible_collections" / Path(*collection.split("."))


def installed_version(collection: str) -> str:
    manifest = folder(collection) / "MANIFEST.json"
    if not manifest.exists():
        return ""
    return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])


def missing() -> dict[str, str]:
    return {name: version for name, version in wanted().items() if installed_version(name) != version}


def from_galaxy() -> bool:
    command = [
        str(Path(sys.executable).with_name("ansible-galaxy")),
        *("collection", "install", "--force", "--requirements-file", str(REQUIREMENTS)),
        *("--collections-path", str(TARGET), "--timeout", str(REQUEST_TIMEOUT)),
    ]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GALAXY_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"setup | Galaxy gave no answer within {GALAXY_TIMEOUT} s", flush=True)
        return False
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[0]
        print(f"setup | Galaxy cannot be used: {reason}", flush=True)
    return result.returncode == 0


def from_package() -> None:
    with tempfile.TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run(
            [*command, "--only-binary", ":all:", "--dest", downloads, "--requirement", str(LOCK)],
            stdin=subprocess.DEVNULL,
            check=True,
        )
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for collection in missing():
                shutil.rmtree(folder(collection), ignore_errors=True)
                prefix = f"ansible_collections/{collection.replace('.', '/')}/"
                archive.extractall(TARGET, [name for name in archive.namelist() if name.startswith(prefix)])


def main() -> int:
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    if missing() and not from_galaxy():
        print("setup | taking the collections from the package that carries them", flush=True)
        from_package()
    if left := missing():
        found = ", ".join(
            f"{name} {version} (found {installed_version(name) or 'none'})" for name, version in left.items()
        )
        print(f"setup | not installed: {found}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
