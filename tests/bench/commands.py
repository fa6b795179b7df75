"""Commands of this machine, run from the project with its own environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.lab import settings
from tests.lab.engine import LabError, say

BIN = Path(sys.executable).parent


class BenchError(LabError):
    """A measurement that could not be made."""


def run(*command: str) -> str:
    environment = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", ANSIBLE_NOCOLOR="1")
    result = subprocess.run(
        command,
        cwd=settings.PROJECT, env=environment, text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    if result.returncode != 0:
        raise BenchError(f"`{' '.join(command)}` failed:\n{result.stdout[-4000:]}\n{result.stderr[-2000:]}")
    return result.stdout


def timed(*command: str) -> tuple[float, str]:
    begin = time.monotonic()
    output = run(*command)
    return time.monotonic() - begin, output


__all__ = ["BenchError", "run", "say", "timed"]
