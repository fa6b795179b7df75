"""One backup: made, read back, reported; and a cry when it is not."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from typing import Any

from shipshape_pgbackrest.tool import (
    LIMIT,
    NOT_ARCHIVED,
    STANZA,
    DiskFull,
    Settings,
    info,
    lock,
    newest,
    pgbackrest,
    said,
    stop_time,
)
from shipshape_pgbackrest.unattended import Failure, cry, limit, now, read_json, write
from shipshape_pgbackrest.watch import why_not_archived

#: What `verify` prints where a file of the repository is not what it should be.
BAD = re.compile(r"status: (?:error|invalid)|(?:missing|invalid|other): [1-9]|\bERROR:")


def damaged_before(out: str, backup: dict[str, Any]) -> list[str]:
    """What is damaged, by its name, where none of it is needed for the new backup or for a moment after it."""
    labels = [label for label, status in re.findall(r"backup: (\S+), status: (\w+)", out) if status != "valid"]
    segments = re.findall(r"invalid result \S*/([0-9A-F]{24})-", out)
    needed = {backup["label"], *(backup.get("reference") or [])}
    if needed & set(labels) or any(segment >= backup["archive"]["start"] for segment in segments):
        return []
    return sorted({*labels, *segments})


def read_back(label: str) -> list[str]:
    """Every file of the repository against the checksum it was written with, and the new backup among them.

    What is damaged of before it is returned: that moments were lost has to be told, and does not make this one worse.
    """
    out = pgbackrest("verify")
    bad = [line.strip() for line in out.splitlines() if BAD.search(line)]
    last = newest(info())
    former = damaged_before(out, last) if bad and last else []
    if bad and not former:
        named = [line for line in bad if line.startswith(("backup:", "archiveId:"))] or bad
        raise Failure(
            "the backup was stored, and the repository does not give back what was written. What depends on it cannot "
            f"be restored; shipshape-pgbackrest run full begins anew. {'; '.join(named[:3])}"
        )
    if last is None or last["label"] != label:
        raise Failure(f"backup {label} was stored, and the repository does not list it as its newest")
    return former


def discard(settings: Settings) -> None:
    """The half of a backup that its disk had no room for: the log needs that room, and the next backup begins anew."""
    if settings.directory:
        for manifest in settings.directory.glob(f"backup/{STANZA}/[0-9]*/backup.manifest.copy"):
            if not manifest.with_suffix("").exists():
                shutil.rmtree(manifest.parent)


def back_up(settings: Settings, kind: str, report: dict[str, Any]) -> None:
    try:
        pgbackrest("backup", f"--type={kind}", disks=[settings.directory] if settings.directory else [])
    except DiskFull:
        discard(settings)
        raise
    last = newest(info())
    if last is None:
        raise Failure("pgBackRest said that all went well, and the repository lists no backup")
    report["damaged"] = read_back(last["label"])
    report.update(
        label=last["label"], type=last["type"], bytes=last["info"]["size"], stored=last["info"]["repository"]["delta"],
        taken=said(stop_time(last)),
    )  # fmt: skip


def run(settings: Settings, kind: str, scheduled: bool) -> int:
    if scheduled and settings.jitter_minutes:
        time.sleep(random.uniform(0, settings.jitter_minutes * 60))
    with lock(settings, "backup"):
        started = time.monotonic()
        report: dict[str, Any] = {
            "status": "failed", "host": settings.host, "repository": settings.repository, "type": kind,
            "started": now().isoformat(), "finished": None, "seconds": None, "failures": [],
            "damaged": [],
        }  # fmt: skip
        known = read_json(settings.state / "last.json").get("damaged", [])
        try:
            with limit(settings.timeout_minutes, "backup", LIMIT):
                back_up(settings, kind, report)
            report["status"] = "ok"
        except Failure as failure:
            why = why_not_archived() if NOT_ARCHIVED in str(failure) else ""
            report["failures"].append(settings.scrub(why + str(failure)))
        except OSError as error:  # a full disk, mostly: what is told must not depend on it
            report["failures"].append(f"this host does not let it work, see df -h: {error}")
        report["finished"] = now().isoformat()
        report["seconds"] = round(time.monotonic() - started)
        try:
            write(settings.state / "last.json", json.dumps(report, indent=2) + "\n")
            if not report["failures"]:
                write(settings.state / "last-success", report["finished"] + "\n")
        except OSError as error:  # a full disk, of which somebody has to hear all the same
            words = f"the report of the backup cannot be written to {settings.state}: {error.strerror}"
            report["failures"].append(words)
        if report["failures"]:
            cry(settings, f"Backup of PostgreSQL on {settings.host} failed:", report["failures"])
            return 1
        if set(report["damaged"]) - set(known):
            cry(settings, f"Older backups of PostgreSQL on {settings.host} are damaged:", [
                f"the repository does not give back what was written of {', '.join(report['damaged'])}: moments that "
                f"depend on it cannot be restored. Backup {report['label']} does not, nor does any moment after it",
            ])  # fmt: skip
        print(f"{report['type']} backup {report['label']}: {report['bytes']} bytes of database, "
              f"{report['stored']} stored, read back, in {report['seconds']} s")  # fmt: skip
        return 0
