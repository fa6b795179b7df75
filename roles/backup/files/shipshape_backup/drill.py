"""A rehearsal: the newest dumps loaded, the newest files compared with those that live, and nothing of it kept."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Dict, Iterator

from shipshape_backup.make import chunks, digest_of, list_files
from shipshape_backup.postgres import answers, psql, tag_of
from shipshape_backup.postgresql_contents import INDEXES, TABLES, tables
from shipshape_backup.restore import choose, create, load, require_space, verified
from shipshape_backup.run import LIMIT, turn
from shipshape_backup.store import FILES, Restic, Settings, moment
from shipshape_backup.throwaway import server
from shipshape_backup.unattended import Failure, Stopped, cry, limit, now, write

Tables = Dict[str, Dict[str, Any]]
LOADED = "rehearsed"  # whatever it is called live, as postgres, which each server has
NAMED = 10  # files that are not what they should be; there is no use in a thousand of them


def rehearse_files(restic: Restic, directory: Path) -> dict[str, Any]:
    """All files of the newest backup, fetched and compared with those that have not changed since."""
    started = time.monotonic()
    snapshot = choose(verified(restic, FILES), "latest", "files")
    files = list_files(restic, snapshot["id"])
    size = sum(node.get("size", 0) for node in files)
    shutil.rmtree(directory, ignore_errors=True)  # of a drill that was killed
    require_space(directory, size, "what is rehearsed")
    directory.mkdir(mode=0o700)
    wrong, same, changed = [], 0, 0
    try:
        restic.call("restore", *restic.reading, snapshot["id"], "--target", str(directory))
        for node in files:
            live, restored = Path(node["path"]), directory / str(node["path"]).lstrip("/")
            if not restored.is_file():
                wrong.append(f"{live} is in the backup and was not restored")
            elif not live.is_file() or abs(live.stat().st_mtime - moment(node["mtime"]).timestamp()) > 0.01:
                changed += 1
            elif digest_of(chunks(live)) != digest_of(chunks(restored)):
                wrong.append(f"{live} has not changed since it was backed up, and what was restored is not the same")
            else:
                same += 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if wrong:
        raise Failure("; ".join([*wrong[:NAMED], *([f"and {len(wrong) - NAMED} more"] if len(wrong) > NAMED else [])]))
    return {
        "snapshot": snapshot["id"][:8], "taken": snapshot["time"][:19], "files": len(files), "same": same,
        "changed_since": changed, "bytes": size, "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def rehearse_databases(restic: Restic, names: list[str], directory: Path, minutes: int) -> Iterator[dict[str, Any]]:
    """The newest dump of each, loaded into a server that is thrown away, and looked at there."""
    if names:
        with server(directory, minutes) as at:
            for name in names:
                yield rehearse_database(restic, name, directory, at)
                # One at a time, so that there is room for the largest, and not for all.
                psql(f"DROP DATABASE {LOADED}", at=at)


def rehearse_database(restic: Restic, name: str, directory: Path, at: str) -> dict[str, Any]:
    started = time.monotonic()
    snapshot = choose(verified(restic, tag_of(name)), "latest", f"database {name}")
    size = int(psql("SELECT pg_database_size(oid) FROM pg_database WHERE datname = :'name'", name=name) or 0)
    require_space(directory, size, f"database {name}, which is loaded to be looked at,")
    create(name, LOADED, at)
    try:
        size = load(restic, snapshot, name, LOADED, directory, at)
        took = round(time.monotonic() - started, 1)
        indexes = int(psql(INDEXES, LOADED, at))
    except Stopped:
        raise
    except Failure as failure:
        raise Failure(
            f"the newest dump of database {name}, of {snapshot['time'][:19]}, is no backup: {failure}"
        ) from failure
    restored, live = tables(answers(TABLES, LOADED, at)), tables(answers(TABLES, name))
    return {
        "name": name, "snapshot": snapshot["id"][:8], "taken": snapshot["time"][:19], "bytes": size,
        "rto_seconds": took, "rpo_seconds": round((now() - moment(snapshot["time"])).total_seconds()),
        "indexes": indexes, "tables": len(restored), "rows": sum(row["rows"] for row in restored.values()),
        "differ": differences(restored, live),
    }  # fmt: skip


def differences(restored: Tables, live: Tables) -> list[str]:
    """Tables that have other rows by now: mostly because the app went on, and a person sees whether that is all."""
    found = []
    for table in sorted({**restored, **live}):
        then, current = (f"{where[table]['rows']} rows" if table in where else "no table" for where in (restored, live))
        if then != current:
            newest = ", ".join(time for time in restored.get(table, {}).get("newest", []) if time)
            until = f" with times up to {newest}" if newest else ""
            found.append(f"{table}: {then} in the backup{until}, {current} by now")
    return found


def drill(settings: Settings, scheduled: bool) -> int:
    with turn(settings, "drill", scheduled):
        started = time.monotonic()
        report: dict[str, Any] = {
            "status": "failed", "host": settings.host, "started": now().isoformat(), "databases": [], "files": None,
            "failures": [],
        }  # fmt: skip
        restic = Restic(settings)
        try:
            with limit(settings.timeout_minutes, "drill", LIMIT):
                directory = settings.state / "drill-server"
                for found in rehearse_databases(restic, settings.databases, directory, settings.timeout_minutes):
                    report["databases"].append(found)
                if settings.paths:
                    report["files"] = rehearse_files(restic, settings.state / "drill")
        except Failure as failure:
            report["failures"].append(settings.scrub(str(failure)))
        except OSError as error:  # a full disk, mostly: what is told must not depend on it
            report["failures"].append(f"this host does not let it work, see df -h: {error}")
        report["status"] = "failed" if report["failures"] else "ok"
        report["seconds"] = round(time.monotonic() - started)
        directory = settings.state / "drills"
        try:
            directory.mkdir(exist_ok=True)
            os.chmod(directory, 0o755)
            write(directory / f"{now():%Y-%m-%dT%H%M%S}.json", json.dumps(report, indent=2) + "\n")
            if not report["failures"]:
                write(settings.state / "last-drill-success", now().isoformat() + "\n")
        except OSError as error:  # a full disk, of which somebody has to hear all the same
            report["failures"].append(f"the report of the drill cannot be written to {directory}: {error.strerror}")
        if report["failures"]:
            cry(settings, f"The restore drill of {settings.host} failed:", report["failures"])
            return 1
        for database in report["databases"]:
            print(
                "database {name} of {taken}: {tables} tables with {rows} rows, loaded from {bytes} bytes in "
                "{rto_seconds} s; {indexes} indexes are whole. A loss now would cost {rpo_seconds} s".format(**database)
            )
            for difference in database["differ"]:
                print(f"  {difference}")
        if report["files"]:
            print("files of {taken}: {files} restored, {same} of them the same as those that live, "
                  "{changed_since} changed since, in {seconds} s".format(**report["files"]))  # fmt: skip
        return 0
