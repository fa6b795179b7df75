"""A rehearsal: the newest backups read to their end, the files compared with those that live, nothing of it kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from shipshape_backup.make import chunks, digest_of, list_files
from shipshape_backup.postgres import as_postgres, file_of, tag_of
from shipshape_backup.restore import choose, require_space, verified
from shipshape_backup.run import LIMIT, turn
from shipshape_backup.store import FILES, Restic, Settings, end, moment, text_of
from shipshape_backup.unattended import Failure, cry, limit, now, scratch, write

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


def rehearse_database(restic: Restic, name: str) -> dict[str, Any]:
    """The newest dump, unpacked by pg_restore to its last byte without any server."""
    started = time.monotonic()
    snapshot = choose(verified(restic, tag_of(name)), "latest", f"database {name}")
    size = 0
    with scratch() as err:
        command = ["pg_restore", "--exit-on-error", "--file=/dev/null"]
        process = as_postgres(*command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=err)
        assert process.stdin
        try:
            for chunk in restic.read(snapshot["id"], "/" + file_of(name)):
                size += len(chunk)
                process.stdin.write(chunk)
            process.stdin.close()
            process.wait()
        except BrokenPipeError:
            process.wait()  # it says why below
        finally:
            end(process)
        if process.returncode != 0:
            raise Failure(f"the newest dump of database {name} cannot be read: {text_of(err).strip()[-500:]}")
    return {
        "name": name, "snapshot": snapshot["id"][:8], "taken": snapshot["time"][:19], "bytes": size,
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


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
                for name in settings.databases:
                    report["databases"].append(rehearse_database(restic, name))
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
            print("database {name} of {taken}: {bytes} bytes, readable to the end, in {seconds} s".format(**database))
        if report["files"]:
            print("files of {taken}: {files} restored, {same} of them the same as those that live, "
                  "{changed_since} changed since, in {seconds} s".format(**report["files"]))  # fmt: skip
        return 0
