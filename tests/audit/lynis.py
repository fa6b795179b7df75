"""Lynis: its hardening index, its warnings, and where the points were lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.audit.model import AuditError, Finding, Result
from tests.audit.target import Target

NAME = "lynis"
WANTED_INDEX = 88


def run(target: Target, raw: Path) -> Result:
    target.install("lynis")
    target.root("lynis audit system --quick --no-colors >/dev/null 2>&1")
    report, log = (target.root(f"cat /var/log/{name}") for name in ("lynis-report.dat", "lynis.log"))
    (raw / "lynis-report.dat").write_bytes(report)
    (raw / "lynis.log").write_bytes(log)
    return parse(report.decode(errors="replace"), log.decode(errors="replace"))


def parse(report: str, log: str) -> Result:
    values = dict(line.split("=", 1) for line in report.splitlines() if "=" in line and "[]" not in line)
    if "hardening_index" not in values:
        raise AuditError("Lynis did not come to an index: see lynis.log in the raw outputs")
    index = int(values["hardening_index"])
    return Result(
        NAME,
        f"Lynis {values.get('lynis_version', '')}".strip(),
        f"hardening index {index}",
        f"≥ {WANTED_INDEX}, no warning unwaived",
        index >= WANTED_INDEX,
        tuple(_rows(report, "warning")),
        (*lost_points(log), *_rows(report, "suggestion")),
    )


def _rows(report: str, kind: str) -> Iterator[Finding]:
    """`suggestion[]=SSH-7408|Consider hardening SSH configuration|MaxSessions (set 10 to 2)|-|`"""
    for line in report.splitlines():
        if line.startswith(f"{kind}[]="):
            test, title, *more = line.partition("=")[2].split("|")
            yield Finding(test, title, kind, "; ".join(part for part in more if part.strip(" -")))


def lost_points(log: str) -> tuple[Finding, ...]:
    """One finding for each test that did not give all of its points, the costliest first."""
    lost: dict[tuple[str, str], int] = {}
    test = ("", "")
    for line in log.splitlines():
        if found := re.search(r"Performing test ID (\S+) \((.*)\)", line):
            test = (found.group(1), found.group(2))
        elif found := re.search(r"assigned partial number of hardening points \((\d+) of (\d+)\)", line):
            lost[test] = lost.get(test, 0) + int(found.group(2)) - int(found.group(1))
    costly = sorted(lost.items(), key=lambda item: -item[1])
    return tuple(Finding(name, title, f"-{points:2} points") for (name, title), points in costly if points)
