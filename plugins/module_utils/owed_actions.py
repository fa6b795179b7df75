"""Restarts and reloads that a change asks for and that have not been done yet, kept on the host as 'verb unit'.

A run that is cut off forgets them: the file is new, the service still runs with the old one, and the next run sees no
difference. Whoever changes something writes a note here and whoever restarts removes it; what is left belongs to a run
that was cut off. The notes live in /run because a reboot starts every service anew anyway.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import List

DIRECTORY = "/run/shipshape/owed-actions"


def _note(action: str) -> str:
    return os.path.join(DIRECTORY, hashlib.sha256(action.encode()).hexdigest()[:16])


def owed() -> List[str]:
    """What is owed, sorted."""
    try:
        notes = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    actions = []
    for note in notes:
        with open(os.path.join(DIRECTORY, note), encoding="utf-8") as handle:
            actions.append(handle.read())
    return sorted(actions)


def remember(actions: List[str]) -> None:
    if actions:
        os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
    for action in actions:
        with open(_note(action), "w", encoding="utf-8") as handle:
            handle.write(action)


def settle(actions: List[str]) -> None:
    """They have been done."""
    for action in actions:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_note(action))
