"""Handlers a run has notified and not run yet, kept on the host.

Ansible forgets its notifications when a run is interrupted: the file is new, the service still runs with the old one,
and the next run sees no difference. Whoever notifies writes a note here and whoever handles removes it; what is left
belongs to a run that was cut off. The notes live in /run because a reboot starts every service anew anyway.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import List

DIRECTORY = "/run/shipshape/owed-handlers"


def _note(name: str) -> str:
    return os.path.join(DIRECTORY, hashlib.sha256(name.encode()).hexdigest()[:16])


def owed() -> List[str]:
    """Names of the handlers that are owed, sorted."""
    names = []
    try:
        notes = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    for note in notes:
        with open(os.path.join(DIRECTORY, note), encoding="utf-8") as handle:
            names.append(handle.read())
    return sorted(names)


def remember(names: List[str]) -> None:
    if names:
        os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
    for name in names:
        with open(_note(name), "w", encoding="utf-8") as handle:
            handle.write(name)


def settle(name: str) -> None:
    """The handler has done its work."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_note(name))
