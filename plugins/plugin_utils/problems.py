"""What is wrong with an inventory, in words for the person who has to put it right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]

SHOWN = 60


@dataclass(frozen=True)
class Unresolved:
    """Stands for a value whose template failed: the validation goes on around it."""

    reason: str
    wanted: str = "a template that can be worked out"


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where it stands in the inventory, what is there, and what would do."""

    path: Path
    found: str
    wanted: str
    hosts: tuple[str, ...] = ()
    origin: str = ""

    @property
    def place(self) -> str:
        """The path as the inventory's reader would write it, behind the hosts it concerns unless it concerns all."""
        place = dotted(self.path)
        return f"{', '.join(self.hosts)}: {place}" if self.hosts else place


@dataclass(frozen=True)
class Fault:
    """What a check says of a value; the path is known to whoever asked."""

    found: str
    wanted: str


def dotted(path: Path) -> str:
    """A path in the form `apps.malar-api.domains[1]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def quoted(value: str) -> str:
    """A text as it is shown: short, on one line."""
    line = " ".join(value.split())
    return f'"{line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"}"'


def describe(value: Any, secret: bool = False) -> str:
    """A value in words; of a secret only its size."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        # Where a secret was to stand in braces, a key may be the secret.
        if secret:
            return "a dictionary"
        return "a dictionary" + (f" with the keys {', '.join(str(key) for key in value)}" if value else " with no keys")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}" if value else "an empty list"
    if value == "":
        return "an empty text"
    if secret:
        return f"a value of {count(len(str(value)), 'character')}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return f"the {type(value).__name__} {value} (YAML reads it so unless it is quoted)"


def count(number: int, thing: str) -> str:
    """A number of things, with the plural where it belongs."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def listing(names: Iterable[str]) -> str:
    """Names in one line, in order."""
    return ", ".join(sorted(names))


def meant(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name closest to a mistyped one, or nothing."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=cutoff)
    return close[0] if close else ""


def unknown_key(name: str, known: Iterable[str]) -> Fault:
    """What to say of a key that nothing reads."""
    names = list(known)
    guess = meant(name, names)
    question = f"did you mean `{guess}`? " if guess else ""
    return Fault("a key that is not known", f"{question}Known here: {listing(names)}")


def report(problems: Sequence[Problem]) -> str:
    """All problems in one message that reads well in a terminal."""
    blocks = []
    for number, problem in enumerate(problems, start=1):
        origin = f"   ({problem.origin})" if problem.origin else ""
        label = f"{number}. ".rjust(len(str(len(problems))) + 2)
        indent = " " * len(label)
        blocks.append(
            f"{label}{problem.place}{origin}\n{indent}found:  {problem.found}\n{indent}wanted: {problem.wanted}"
        )
    head = f"The inventory has {count(len(problems), 'problem')}. No host was contacted; nothing has changed."
    return "\n\n".join([head, *blocks])
