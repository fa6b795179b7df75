"""Programs out of the distribution's packages, for tests on a machine where they are not installed."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache"


@functools.cache
def home(program: str, *packages: str) -> Path:
    """The root under which `program`, such as usr/bin/restic, lies: the system's, or that of a copy in .cache."""
    if os.path.exists(f"/{program}"):
        return Path("/")
    folder = CACHE / Path(program).name
    if not (folder / program).exists():
        # Several test processes may want it at once: each unpacks for itself, and the first to be done is taken.
        own = CACHE / f"{Path(program).name}.{os.getpid()}"
        own.mkdir(parents=True, exist_ok=True)
        fetch = ["apt-get", "download", *packages]
        if subprocess.run(fetch, cwd=own, capture_output=True, check=False).returncode and os.geteuid() == 0:
            subprocess.run(["apt-get", "update"], capture_output=True, check=False)
            subprocess.run(fetch, cwd=own, capture_output=True, check=False)
        for package in sorted(own.glob("*.deb")):
            subprocess.run(["dpkg", "--extract", str(package), str(own)], check=True)
        with contextlib.suppress(OSError):
            if (own / program).exists():
                own.rename(folder)
        shutil.rmtree(own, ignore_errors=True)
    assert (folder / program).exists(), f"These tests need {program}, and apt cannot fetch it: install {packages[0]}."
    return folder
