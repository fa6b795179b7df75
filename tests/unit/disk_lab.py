"""A small disk of its own, to be filled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def disk(path: Path, size: int, owner: int = 0) -> Iterator[Path]:
    """Of so many bytes, mounted at `path`; only root can."""
    path.mkdir(parents=True, exist_ok=True)
    sudo = [] if os.getuid() == 0 else ["sudo", "-n"]
    options = f"size={size},mode=0755,uid={owner or os.getuid()}"
    command = [*sudo, "mount", "-t", "tmpfs", "-o", options, "shipshape-test", str(path)]
    try:
        subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield path
    finally:
        subprocess.run([*sudo, "umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    """To the last byte, with this file."""
    with path.open("wb") as stream, suppress(OSError):
        while True:
            stream.write(bytes(1 << 16))
            stream.flush()
