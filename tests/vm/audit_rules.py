"""Rules of the kernel's audit system: as files say them, and as `auditctl -l` says them of what is loaded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

#: Lines that set the system up rather than add a rule to it.
SETTINGS = ("-D", "-b", "-f", "-e", "-r", "-i", "-c", "--backlog_wait_time", "--loginuid-immutable", "--reset-lost")
UNSET = re.compile(r"\b(unset|4294967295)$")


def canonical(line: str) -> frozenset[str] | None:
    """One rule whatever way it is written, or None for what is not a rule."""
    words = shlex.split(line, comments=True)
    if not words or words[0] in SETTINGS:
        return None
    found = set()
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option == "-k":
            option, value = "-F", f"key={value}"
        if option == "-S":
            # A rule that names no call is listed with all of them.
            found |= {f"-S {call}" for call in value.split(",") if call != "all"}
        elif option == "-a":
            found.add(f"-a {','.join(sorted(value.split(',')))}")
        elif option == "-p":
            found.add(f"-p {''.join(sorted(value))}")
        elif option == "-w":
            found.add(f"-w {value.rstrip('/')}")
        else:
            found.add(f"{option} {UNSET.sub('-1', value)}")
    return frozenset(found)


def canonicals(lines: Iterable[str]) -> set[frozenset[str]]:
    return {rule for rule in map(canonical, lines) if rule is not None}
