"""The Docker engine, through its command line."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.lab import settings


class LabError(Exception):
    """A failure the user can act on: the message says what to do."""


def say(message: str) -> None:
    """Progress goes to stderr; stdout is for what a caller may want to read."""
    print(f"lab | {message}", file=sys.stderr, flush=True)


@contextmanager
def stage(title: str) -> Iterator[None]:
    started = time.monotonic()
    say(f"{title} …")
    yield
    say(f"{title}: done in {time.monotonic() - started:.0f} s")


@contextmanager
def exclusive(what: str) -> Iterator[None]:
    """One at a time: scenarios that start together build an image or the services once, and share them."""
    settings.STATE.mkdir(exist_ok=True)
    with open(settings.STATE / f"{what}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def docker(*arguments: str, stdin: bytes | None = None, check: bool = True) -> str:
    """Run a docker command and return what it printed; a failure carries the engine's own words."""
    command = ["docker", *arguments]
    try:
        result = subprocess.run(command, input=stdin or b"", capture_output=True, check=False)
    except FileNotFoundError as error:
        raise LabError("there is no `docker` command here: run `make engine`") from error
    if check and result.returncode != 0:
        words = result.stderr.decode(errors="replace").strip() or result.stdout.decode(errors="replace").strip()
        raise LabError(f"`docker {' '.join(arguments[:4])} …` failed:\n{words}")
    return result.stdout.decode(errors="replace").strip()


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    """What the engine knows of an image, container, network or volume, or None when there is none of that name."""
    found: list[dict[str, Any]] = json.loads(docker(kind, "inspect", name, check=False) or "[]")
    return found[0] if found else None


def image_label(image: str, label: str) -> str | None:
    details = inspect("image", image)
    labels: dict[str, str] = (details or {}).get("Config", {}).get("Labels") or {}
    return labels.get(label)


def ensure_network() -> None:
    if inspect("network", settings.NETWORK):
        return
    arguments = ("--subnet", settings.SUBNET, "--ip-range", settings.DYNAMIC_RANGE, "--label", settings.LABEL)
    try:
        docker("network", "create", *arguments, settings.NETWORK)
    except LabError:
        # Two scenarios may start at once; the second finds the network of the first.
        if not inspect("network", settings.NETWORK):
            raise
