"""One run: everything that is declared, a report of it, and a cry when anything is missing."""

from __future__ import annotations

import datetime
import json
import os
import random
import time
from typing import Any, Callable, ContextManager, Optional

from shipshape_backup import manifest
from shipshape_backup.make import back_up_database, back_up_paths, forget
from shipshape_backup.store import UNVERIFIED, NotStored, Restic, Settings, moment
from shipshape_backup.unattended import Failure, Stopped, cry, limit, lock, now, read_json, write

LIMIT = "backup_timeout_minutes"
TOLERANCE = datetime.timedelta(minutes=10)  # by which clocks may differ


def back_up(settings: Settings, report: dict[str, Any]) -> None:
    """Fill the report; a failure of one thing does not keep the others from being stored."""
    failures: list[str] = report["failures"]
    restic = Restic(settings)
    snapshots, identity, made = restic.begin()
    # A lock takes restic 0.2 s, and what has a snapshot nobody prunes while it is read back.
    restic.reading = ["--no-lock"]
    known = read_json(settings.state / "last.json")
    report["repository_id"] = identity or same_as_before(known, settings, snapshots) or restic.open(make=False)[0]
    if made and known.get("repository") == settings.repository and known.get("repository_id"):
        failures.append(
            "the repository was gone, and the earlier backups with it. A new one was made; it holds this run only"
        )
    failures += ahead(snapshots)
    leftover = [str(snapshot["id"]) for snapshot in snapshots if UNVERIFIED in snapshot["tags"]]
    if leftover:
        restic.call("forget", *leftover)
    broken: Optional[Exception] = None
    try:
        store(restic, report)
    except (Failure, OSError) as error:  # what was read back before it was stopped is a backup all the same
        broken = error
    count(restic, report)
    left = []
    if not failures and not broken:
        # Only a whole run makes older ones dispensable.
        try:
            left = forget(restic)
        except Failure as failure:
            failures.append(f"the backup was made, and old ones could not be removed: {failure}")
    if stored(report):
        try:
            name_snapshots(stored(report), left or restic.snapshots())
        except Failure as failure:
            failures.append(str(failure))
    if broken:
        raise broken


def same_as_before(known: dict[str, Any], settings: Settings, snapshots: list[dict[str, Any]]) -> str:
    """The id of the repository if what the last run has stored there is in it, and so it is the same one."""
    named = [str(entry["snapshot"]) for entry in stored(known)]
    there = {str(snapshot["id"])[: len(name)] for snapshot in snapshots for name in named}
    same = bool(named) and known.get("repository") == settings.repository and there.issuperset(named)
    return str(known.get("repository_id") or "") if same else ""


def stored(report: dict[str, Any]) -> list[dict[str, Any]]:
    files = report.get("files")
    return [*report.get("databases", []), *([files] if files else [])]


def store(restic: Restic, report: dict[str, Any]) -> None:
    """All that is declared: stored, and read back."""
    settings, failures = restic.settings, report["failures"]

    def attempt(work: Callable[[], dict[str, Any]]) -> Optional[dict[str, Any]]:
        try:
            return work()
        except Stopped:
            raise
        except Failure as failure:
            failures.append(str(failure))
            report["not_stored"] += isinstance(failure, NotStored)
            return None

    for name in settings.databases:
        done = attempt(lambda name=name: back_up_database(restic, name))  # type: ignore[misc]
        report["databases"] += [done] if done else []
    rows = manifest.state(settings)
    report["uncovered"] = manifest.uncovered(rows)
    write(settings.state / "manifest.json", manifest.text_of(settings, rows))
    missing = [path for path in settings.paths if not os.path.lexists(path)]
    failures += [f"path {path} is to be backed up and does not exist on this host" for path in missing]
    present = [path for path in settings.paths if path not in missing]
    if present:
        report["files"] = attempt(lambda: back_up_paths(restic, present))


def count(restic: Restic, report: dict[str, Any]) -> None:
    """All at once, since restic takes most of a second to open a repository."""
    if not stored(report):
        return
    try:
        restic.count(*(entry["snapshot"] for entry in stored(report)))
    except Failure as failure:
        report["failures"].append(f"what was stored was read back, and could not be marked as a backup: {failure}")
        report.update(databases=[], files=None)


def ahead(snapshots: list[dict[str, Any]]) -> list[str]:
    """What is to be said when a backup is of a time to come: by dates that are wrong, a new one could go at once."""
    present = now()
    found = [snapshot for snapshot in snapshots if moment(snapshot["time"]) > present + TOLERANCE]
    if not found:
        return []
    last = found[-1]
    return [
        f"backup {last['id'][:8]} is of {last['time'][:19]}, and this host's clock says {present:%Y-%m-%dT%H:%M:%S}. "
        "No old backups are removed until that is settled. If the clock was set back, set it right: timedatectl. "
        f"If it was ahead once, and is right now: shipshape-backup remove {' '.join(s['id'][:8] for s in found)}"
    ]


def name_snapshots(entries: list[dict[str, Any]], snapshots: list[dict[str, Any]]) -> None:
    """Under the ids they have now: restic wrote them anew when their mark was taken away."""
    counted = [snapshot for snapshot in snapshots if UNVERIFIED not in snapshot["tags"]]
    for entry in entries:
        found = [s["id"] for s in counted if str(s.get("original", "")).startswith(entry["snapshot"])]
        if not found:
            raise Failure(f"snapshot {entry['snapshot']} was stored and read back, and is not listed as a backup")
        entry["snapshot"] = found[0][:8]


def turn(settings: Settings, what: str, scheduled: bool) -> ContextManager[None]:
    """A backup and a drill exclude each other. By the schedule one waits for the other, which has its limit, too."""
    return lock(settings.lock, what, patience=settings.timeout_minutes * 60 if scheduled else 0)


def run(settings: Settings, scheduled: bool) -> int:
    if scheduled and settings.jitter_minutes:
        time.sleep(random.uniform(0, settings.jitter_minutes * 60))
    with turn(settings, "backup", scheduled):
        started = now()
        report: dict[str, Any] = {
            "status": "failed", "host": settings.host, "repository": settings.repository, "repository_id": None,
            "started": started.isoformat(), "finished": None, "seconds": None,
            "databases": [], "files": None, "failures": [], "not_stored": 0,
            "uncovered": [],
        }  # fmt: skip
        if not settings.databases and not settings.paths:
            report["failures"].append("there is nothing to back up: backup_databases and backup_paths are empty")
        else:
            try:
                with limit(settings.timeout_minutes, "backup", LIMIT):
                    back_up(settings, report)
            except Failure as failure:
                report["failures"].append(str(failure))
            except OSError as error:  # a full disk, mostly: what is told must not depend on it
                report["failures"].append(f"this host does not let it work, see df -h: {error}")
        return finish(settings, report, started.timestamp())


def finish(settings: Settings, report: dict[str, Any], started: float) -> int:
    report["failures"] = [settings.scrub(failure) for failure in report["failures"]]
    report["status"] = "failed" if report["failures"] else "ok"
    report["finished"] = now().isoformat()
    report["seconds"] = round(time.time() - started)
    report["repository_id"] = report["repository_id"] or read_json(settings.state / "last.json").get("repository_id")
    try:
        write(settings.state / "last.json", json.dumps(report, indent=2) + "\n")
        if not report["failures"]:
            write(settings.state / "last-success", report["finished"] + "\n")
    except OSError as error:  # a full disk, of which somebody has to hear all the same
        report["failures"].append(f"the report of the backup cannot be written to {settings.state}: {error.strerror}")
    if report["failures"]:
        made = report["not_stored"] == len(report["failures"])
        cry(
            settings,
            f"Backup of {settings.host} was made and not uploaded:" if made else f"Backup of {settings.host} failed:",
            report["failures"],
        )
        return 1
    for database in report["databases"]:
        print(f"database {database['name']}: snapshot {database['snapshot']}, {database['bytes']} bytes, read back")
    files = report["files"]
    if files:
        print(f"paths {' '.join(files['paths'])}: snapshot {files['snapshot']}, {files['files']} files")
    if report["uncovered"]:
        print(f"no copy is made of {', '.join(report['uncovered'])}; backup.paths takes what should have one")
    print(f"backup of {settings.host} done in {report['seconds']} s, stored in {settings.repository}")
    return 0
