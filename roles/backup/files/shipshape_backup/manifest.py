"""All state that this host has, and where its copy is: what to ask before a host is given up."""

from __future__ import annotations

import glob
import json
import os
from pathlib import Path
from typing import Any

from shipshape_backup.postgres import psql
from shipshape_backup.store import Settings
from shipshape_backup.unattended import Failure, now

NONE = "none"
SERVED = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY datname"


def has_content(path: Path) -> bool:
    """Whether there is a file in it; an empty directory is no state."""
    if not path.is_dir():
        return path.exists()
    return any(names for _, _, names in os.walk(path))


def copy_of(path: Path, settings: Settings) -> str:
    """Where the copy of a path is."""
    declared = [Path(text) for text in settings.paths]
    if any(given == path or given in path.parents for given in declared):
        return f"files in {settings.repository}"
    parts = [str(given) for given in declared if path in given.parents]
    return f"files in {settings.repository}, of {', '.join(parts)} alone" if parts else NONE


def databases(settings: Settings) -> list[dict[str, str]]:
    try:
        served = [name for name in psql(SERVED).split("\n") if name]
    except Failure:
        # No server on this host; one that is down is what the run itself complains of.
        served = []
    rows = []
    for name in sorted({*served, *settings.databases}):
        copies = [f"dump in {settings.repository}"] if name in settings.databases else []
        copies += [settings.server_copy] if settings.server_copy else []
        rows.append({"kind": "database", "what": name, "copy": "; ".join(copies) or NONE})
    return rows


def places(settings: Settings) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for place in settings.places:
        for found in sorted(glob.glob(place["path"])):
            path = Path(found)
            # Of a place around one that is named already, that one is what there is to say.
            if has_content(path) and not any(path in Path(row["what"]).parents for row in rows):
                copy = copy_of(path, settings)
                rows.append(
                    {"kind": place["kind"], "what": found, "copy": place.get("anew", NONE) if copy == NONE else copy}
                )
    known = [Path(row["what"]) for row in rows]
    for text in settings.paths:
        path = Path(text)
        if not any(there == path or there in path.parents or path in there.parents for there in known):
            rows.append({"kind": "declared path", "what": text, "copy": copy_of(path, settings)})
    return rows


def state(settings: Settings) -> list[dict[str, str]]:
    """Each thing of this host that is not made anew by itself: kind, what it is, and where its copy is (or `none`)."""
    return [*databases(settings), *places(settings)]


def uncovered(rows: list[dict[str, str]]) -> list[str]:
    return [f"{row['kind']} {row['what']}" for row in rows if row["copy"] == NONE]


def text_of(settings: Settings, rows: list[dict[str, str]]) -> str:
    """What goes into the backup, for whoever has nothing but that."""
    manifest: dict[str, Any] = {"host": settings.host, "taken": now().isoformat(), "state": rows}
    return json.dumps(manifest, indent=2) + "\n"
