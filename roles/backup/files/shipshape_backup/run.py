"""One run: everything that is declared, a report of it, and a cry when anything is missing."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import random
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

from shipshape_backup import mail, manifest
from shipshape_backup.make import back_up_database, back_up_paths, forget
from shipshape_backup.store import UNVERIFIED, Busy, Failure, NotStored, Restic, Settings, Stopped, moment, now
from shipshape_backup.webhook import NotTold, points, tell

TOLERANCE = datetime.timedelta(minutes=10)  # by which clocks may differ


@contextmanager
def lock(settings: Settings) -> Iterator[None]:
    """One run at a time on this host. The kernel lets go of it however the holder ends."""
    with open(settings.lock, "a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise Busy(
                f"another backup is running: {handle.read().strip() or 'unknown'}. This one did nothing"
            ) from error
        handle.truncate(0)
        handle.write(f"process {os.getpid()}, since {now().isoformat()}\n")
        handle.flush()
        yield


def watch(minutes: int) -> None:
    """A run that hangs, or is told to stop, ends like one that failed: with a report."""

    def late(*_: Any) -> None:
        raise Stopped(f"the backup was not done after {minutes} minutes and was stopped (backup_timeout_minutes)")

    def stopped(*_: Any) -> None:
        raise Stopped("the backup was told to stop before it was done")

    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGINT, stopped)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)


def write(path: Path, text: str) -> None:
    """Readable by a monitor, and never half written."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)


def previous(settings: Settings) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((settings.state / "last.json").read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def back_up(settings: Settings, report: dict[str, Any]) -> None:
    """Fill the report; a failure of one thing does not keep the others from being stored."""
    failures: list[str] = report["failures"]
    restic = Restic(settings)
    known = previous(settings)
    report["repository_id"], made = restic.open()
    if made and known.get("repository") == settings.repository and known.get("repository_id"):
        failures.append(
            "the repository was gone, and the earlier backups with it. A new one was made; it holds this run only"
        )
    restic.call("unlock")  # of runs that are dead, no others
    failures += ahead(restic)
    leftover = [str(snapshot["id"]) for snapshot in restic.snapshots(UNVERIFIED)]
    if leftover:
        restic.call("forget", *leftover)

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
    name_snapshots(restic, [*report["databases"], *([report["files"]] if report["files"] else [])])
    if not failures:
        # Only a whole run makes older ones dispensable.
        try:
            forget(restic)
        except Failure as failure:
            failures.append(f"the backup was made, and old ones could not be removed: {failure}")


def ahead(restic: Restic) -> list[str]:
    """What is to be said when a backup is of a time to come: by dates that are wrong, a new one could go at once."""
    present = now()
    found = [snapshot for snapshot in restic.snapshots() if moment(snapshot["time"]) > present + TOLERANCE]
    if not found:
        return []
    last = found[-1]
    return [
        f"backup {last['id'][:8]} is of {last['time'][:19]}, and this host's clock says {present:%Y-%m-%dT%H:%M:%S}. "
        "No old backups are removed until that is settled. If the clock was set back, set it right: timedatectl. "
        f"If it was ahead once, and is right now: shipshape-backup remove {' '.join(s['id'][:8] for s in found)}"
    ]


def name_snapshots(restic: Restic, stored: list[dict[str, Any]]) -> None:
    """Under the ids they have now: restic wrote them anew when their mark was taken away."""
    renamed = {str(snapshot.get("original", "")): str(snapshot["id"]) for snapshot in restic.snapshots()}
    for entry in stored:
        found = [now_called for original, now_called in renamed.items() if original.startswith(entry["snapshot"])]
        entry["snapshot"] = (found or [entry["snapshot"]])[0][:8]


def run(settings: Settings, scheduled: bool) -> int:
    if scheduled and settings.jitter_minutes:
        time.sleep(random.uniform(0, settings.jitter_minutes * 60))
    with lock(settings):
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
                watch(settings.timeout_minutes)
                back_up(settings, report)
            except Failure as failure:
                report["failures"].append(str(failure))
            except OSError as error:  # a full disk, mostly: what is told must not depend on it
                report["failures"].append(f"this host does not let it work, see df -h: {error}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        return finish(settings, report, started.timestamp())


def finish(settings: Settings, report: dict[str, Any], started: float) -> int:
    report["failures"] = [settings.scrub(failure) for failure in report["failures"]]
    report["status"] = "failed" if report["failures"] else "ok"
    report["finished"] = now().isoformat()
    report["seconds"] = round(time.time() - started)
    report["repository_id"] = report["repository_id"] or previous(settings).get("repository_id")
    try:
        write(settings.state / "last.json", json.dumps(report, indent=2) + "\n")
        if not report["failures"]:
            write(settings.state / "last-success", report["finished"] + "\n")
    except OSError as error:  # a full disk, of which somebody has to hear all the same
        report["failures"].append(f"the report of the backup cannot be written to {settings.state}: {error.strerror}")
    if report["failures"]:
        for failure in report["failures"]:
            print(f"shipshape-backup: {failure}", file=sys.stderr)
        made = report["not_stored"] == len(report["failures"])
        tell_of(
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


def tell_of(settings: Settings, headline: str, failures: list[str]) -> None:
    """By webhook and by mail, whichever are configured; that one does not work does not keep the other from it."""
    text = settings.scrub(points(headline, failures))
    if settings.webhook:
        try:
            tell(settings.webhook, text)
        except NotTold as error:
            print(f"shipshape-backup: the webhook was not told: {settings.scrub(str(error))}", file=sys.stderr)
    if settings.mail:
        try:
            mail.send(settings.mail, headline.rstrip(":"), text)
        except mail.NotSent as error:
            print(f"shipshape-backup: {settings.mail} was not told: {settings.scrub(str(error))}", file=sys.stderr)
