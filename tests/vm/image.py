"""A machine's disk and kernel, built from the distribution's packages and kept for the next time."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.lab import settings
from tests.lab.engine import LabError, exclusive, stage
from tests.lab.host import ensure_program, privileged
from tests.lab.image import PACKAGES, RELEASES, release_of

BUILD = Path(__file__).parent / "machine-image"
# A machine brings its own kernel; the rest is on every cloud image, and useless or impossible in a container.
ADDED = (BUILD / "packages.txt").read_text(encoding="utf-8").split()
IMAGES = settings.STATE / "vm" / "images"
DISK_SIZE = "12G"
BUILD_TIMEOUT = 1200


def ensure_image(release: str) -> Path:
    """The folder with disk.img, vmlinuz and initrd.img; built unless one of the same definition is there."""
    source = RELEASES[release_of(release)]
    if not source.suite or source.dressed_as:
        built = [name for name, one in RELEASES.items() if one.suite and not one.dressed_as]
        raise LabError(f"a machine cannot be made of {release}: it has no kernel. There are: {', '.join(built)}")
    folder = IMAGES / f"{release}-{_digest(source.hooks)}"
    with exclusive("machine-image"):
        if not (folder / "disk.img").exists():
            _build(release, source.suite, source.hooks, folder)
    return folder


def _digest(hooks: tuple[str, ...]) -> str:
    """Changes whenever anything that goes into the disk does."""
    digest = hashlib.sha256(repr((PACKAGES, hooks, DISK_SIZE)).encode())
    for path in sorted(path for path in BUILD.rglob("*") if path.is_file()):
        digest.update(repr((str(path.relative_to(BUILD)), os.access(path, os.X_OK))).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _build(release: str, suite: str, hooks: tuple[str, ...], folder: Path) -> None:
    ensure_program("mmdebstrap", packages=("mmdebstrap", "debian-archive-keyring"))
    ensure_program("mke2fs", packages=("e2fsprogs",))
    with stage(f"machine image {release}"):
        for older in folder.parent.glob(f"{release}-*"):
            shutil.rmtree(older)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="new-") as new:
            arguments = ["--variant=minbase", f"--include={','.join([*PACKAGES, *ADDED])}", *hooks, suite]
            command = privileged([str(BUILD / "build.sh"), new, DISK_SIZE, *arguments])
            result = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT
            )
            if result.returncode != 0:
                raise LabError(f"the machine image could not be built:\n{(result.stdout + result.stderr)[-3000:]}")
            made = Path(new, "made")
            made.mkdir()
            for name in ("vmlinuz", "initrd.img", "disk.img"):
                Path(new, name).rename(made / name)
            made.rename(folder)
