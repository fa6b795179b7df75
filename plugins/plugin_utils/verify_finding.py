"""A difference between what is declared and what is in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """Where, what was found, and what was declared instead; `hint` is what to do about it."""

    where: str
    found: str
    declared: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f". {self.hint}" if self.hint else ""
        return f"{self.where}: found {self.found}; declared: {self.declared}{hint}"


def output(state: Mapping[str, Any], name: str) -> str | None:
    """What a command printed; None when it is not installed or failed."""
    answer = state["commands"].get(name)
    return None if answer is None or answer["code"] != 0 else str(answer["out"])


def failure(state: Mapping[str, Any], name: str) -> str:
    answer = state["commands"].get(name)
    if answer is None:
        return f"no program for `{name}`"
    return f"`{name}` failed: {(answer['err'] or answer['out']).strip() or 'exit ' + str(answer['code'])}"
