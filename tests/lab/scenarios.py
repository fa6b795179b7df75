"""Molecule scenarios side by side: one line for each as it ends, the log of what failed, and a count at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab import settings
from tests.lab.engine import LabError, say
from tests.lab.image import ensure_image

LOGS = settings.STATE / "logs"
# Enough to see the failed task with what it printed; the whole log is in a file.
SHOWN_LINES = 60


def run(names: Sequence[str], image: str, jobs: int) -> None:
    ensure_image(image)
    LOGS.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        passed = list(pool.map(lambda name: _run_one(name, image), names))
    failed = [name for name, fine in zip(names, passed, strict=True) if not fine]
    print(
        f"scenarios on {image}: {len(names) - len(failed)} passed, {len(failed)} failed"
        f"{' (' + ', '.join(failed) + ')' if failed else ''}, {time.monotonic() - started:.0f} s",
        flush=True,
    )
    if failed:
        raise LabError(f"logs are in {LOGS.relative_to(settings.PROJECT)}")


def _run_one(name: str, image: str) -> bool:
    started = time.monotonic()
    log = LOGS / f"{name}-{image.rpartition(':')[2]}.log"
    say(f"scenario {name} …")
    with log.open("wb") as output:
        result = subprocess.run(
            [Path(sys.executable).with_name("molecule"), "test", "--scenario-name", name],
            cwd=settings.PROJECT,
            env={**os.environ, "SHIPSHAPE_IMAGE": image, "NO_COLOR": "1", "PY_COLORS": "0"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    fine = result.returncode == 0
    say(f"scenario {name}: {'passed' if fine else 'FAILED'} in {time.monotonic() - started:.0f} s")
    if not fine:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(lines[-SHOWN_LINES:]), file=sys.stderr, flush=True)
    return fine
