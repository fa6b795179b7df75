"""The waiver file: strict, because a waiver nobody reads excuses everything."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from tests.audit.model import AuditError, Waiver

FILE = Path(__file__).with_name("waivers.yml")
KEYS = {"auditor", "id", "reason", "images"}
#: Long enough to say why, not only that.
SHORTEST_REASON = 20


def read(path: Path, auditors: Collection[str], images: Collection[str]) -> tuple[Waiver, ...]:
    rows = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    if not isinstance(rows, list):
        raise AuditError(f"{path.name}: wanted a list of waivers")
    problems = [f"{path.name}, waiver {number}: {words}" for number, words in _problems(rows, auditors, images)]
    if problems:
        raise AuditError("\n".join(problems))
    return tuple(
        Waiver(row["auditor"], str(row["id"]), " ".join(row["reason"].split()), tuple(row.get("images", ())))
        for row in rows
    )


def _problems(rows: list[Any], auditors: Collection[str], images: Collection[str]) -> list[tuple[int, str]]:
    problems: list[tuple[int, str]] = []
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            problems.append((number, "wanted a dictionary"))
            continue
        if unknown := sorted(set(row) - KEYS):
            problems.append((number, f"unknown key {', '.join(map(repr, unknown))}"))
        if row.get("auditor") not in auditors:
            problems.append((number, f"auditor {row.get('auditor')!r} is none of {', '.join(sorted(auditors))}"))
        if not row.get("id"):
            problems.append((number, "has no id"))
        if len(str(row.get("reason") or "").strip()) < SHORTEST_REASON:
            problems.append((number, f"its reason does not say why ({SHORTEST_REASON} characters at least)"))
        if strangers := [image for image in row.get("images", ()) if image not in images]:
            problems.append((number, f"image {', '.join(map(repr, strangers))} is none of {', '.join(images)}"))
        key = (str(row.get("auditor")), str(row.get("id")))
        if key in seen:
            problems.append((number, f"{key[0]} {key[1]} is waived twice"))
        seen.add(key)
    return problems
