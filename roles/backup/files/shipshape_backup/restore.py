"""Getting things back: beside what is there, never over it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from shipshape_backup.make import list_files
from shipshape_backup.postgres import as_postgres, conninfo, exists, file_of, psql, tag_of
from shipshape_backup.store import DAMAGED, FILES, UNVERIFIED, Restic, end, moment, text_of
from shipshape_backup.unattended import DISK_FULL, Failure, now, scratch, space, too_full

#: In a directory whose restore is not done: what else is there is of that restore alone.
UNFINISHED = ".shipshape-restore-is-not-done"


def verified(restic: Restic, *tags: str) -> list[dict[str, Any]]:
    return [snapshot for snapshot in restic.snapshots(*tags) if UNVERIFIED not in snapshot["tags"]]


def what(snapshot: dict[str, Any]) -> str:
    return next((str(tag) for tag in snapshot["tags"] if tag == FILES or tag.startswith("database:")), "?")


def choose(snapshots: list[dict[str, Any]], wanted: str, label: str) -> dict[str, Any]:
    """`latest`, the beginning of an id, or the last one at or before a time."""
    if not snapshots:
        raise Failure(f"the repository has no backup of {label}. See: shipshape-backup list")
    if wanted == "latest":
        return snapshots[-1]
    if re.match(r"\d{4}-\d{2}-\d{2}", wanted):
        try:
            until = moment(wanted)
        except ValueError as error:
            raise Failure(
                f"snapshot '{wanted}' is no time; write it as 2026-01-31T02:00:00 (UTC) or 2026-01-31"
            ) from error
        newest = f"the newest backup of {label} is of {snapshots[-1]['time'][:19]}"
        if until > now():
            raise Failure(f"{wanted} is in the future; {newest}. Say latest for that one")
        before = [snapshot for snapshot in snapshots if moment(snapshot["time"]) <= until]
        if not before:
            raise Failure(
                f"no backup of {label} is as old as {wanted}; the first is of {snapshots[0]['time'][:19]}, {newest}"
            )
        return before[-1]
    found = [snapshot for snapshot in snapshots if len(wanted) >= 4 and snapshot["id"].startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(f"{s['id'][:8]} ({s['time'][:19]})" for s in snapshots[-5:])
        raise Failure(f"there is no snapshot '{wanted}' of {label}. The latest are: {known}")
    return found[0]


def require_space(directory: Path, size: int, what: str) -> None:
    """`what` takes `size` bytes; a tenth more is asked for, and what is left to others."""
    free, others = space(directory)
    if free - others < size * 1.1:
        raise Failure(
            f"{directory} has {free >> 20} MB left, and {what} takes {size >> 20} MB. Make room, or choose another disk"
            f"; {others >> 20} MB are left to others"
        )


def restore_database(restic: Restic, name: str, wanted: str, into: str) -> dict[str, Any]:
    started = time.monotonic()
    into = into or f"{name}_restored"
    snapshot = choose(verified(restic, tag_of(name)), wanted, f"database {name}")
    if exists(into):
        raise Failure(f"database {into} exists and is not overwritten. Choose another name (into), or drop it first")
    dump = sum(node.get("size", 0) for node in list_files(restic, snapshot["id"]))
    live = psql("SELECT pg_database_size(oid) FROM pg_database WHERE datname = :'name'", name=name)
    data = Path(psql("SHOW data_directory"))
    require_space(data, max(dump, int(live or 0)), f"database {name}")
    create(name, into)
    try:
        load(restic, snapshot, name, into, data)
        psql("ANALYZE", into)
    except BaseException as error:
        # We made it a moment ago and it is not whole.
        psql('DROP DATABASE :"into"', into=into)
        if isinstance(error, Failure):
            raise Failure(f"nothing is left of {into}: {error}") from error
        raise
    count = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    return {
        "database": name, "into": into, "snapshot": snapshot["id"][:8], "taken": snapshot["time"][:19],
        "tables": int(psql(count, into)), "bytes": int(psql("SELECT pg_database_size(current_database())", into)),
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def create(name: str, into: str, at: str = "") -> None:
    """With the owner and the locale of the original where that is still there, or of what it would be.

    `at`: on another server than that of the original.
    """
    found = psql(
        "SELECT pg_get_userbyid(datdba) || E'\\t' || datcollate FROM pg_database WHERE datname = :'name'", name=name
    )
    owner, locale = found.split("\t") if found else ("postgres", "C.UTF-8")
    if not found and psql("SELECT 1 FROM pg_roles WHERE rolname = :'name'", name=name):
        owner = name
    psql(
        'CREATE DATABASE :"into" OWNER :"owner" TEMPLATE template0 ENCODING \'UTF8\' '
        "LC_COLLATE :'locale' LC_CTYPE :'locale';\n"
        'REVOKE ALL ON DATABASE :"into" FROM PUBLIC',
        at=at,
        into=into,
        owner=owner,
        locale=locale,
    )
    if int(psql("SHOW server_version_num")) < 150000:
        # A dump of these versions says what others may do in the schema public, and not whose it is.
        psql('ALTER SCHEMA public OWNER TO :"owner"', into, at, owner=owner)


def load(restic: Restic, snapshot: dict[str, Any], name: str, into: str, data: Path, at: str = "") -> int:
    """How many bytes the dump had.

    `data` is the server's directory, whose disk must not fill up. `at`: into a database of another server.
    """
    size = 0
    with scratch() as err:
        command = ["pg_restore", "--exit-on-error", "--no-password", "--dbname", conninfo(into, at)]
        process = as_postgres(*command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=err)
        assert process.stdin
        full: list[str] = []

        def look() -> None:
            while process.poll() is None and not full:
                full.extend(filter(None, [too_full(data)]))
                time.sleep(0.2)
            end(process)

        threading.Thread(target=look, daemon=True).start()
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
            said = text_of(err).strip()[-2000:]
            why = full[0] if full else f"{DISK_FULL} ({said})" if "No space left on device" in said else said
            raise Failure(f"pg_restore of database {name} failed: {why}")
    return size


def clear(directory: Path) -> None:
    """The note goes last: should this be killed, too, the next one goes on with it."""
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name == UNFINISHED):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def restore_files(restic: Restic, wanted: str, target: str, paths: list[str]) -> dict[str, Any]:
    started = time.monotonic()
    snapshot = choose(verified(restic, FILES), wanted, "files")
    directory = Path(target or restic.settings.state / "restored" / snapshot["id"][:8])
    unfinished = directory / UNFINISHED
    if unfinished.exists():  # of one that was killed
        clear(directory)
    if directory.exists() and any(directory.iterdir()):
        raise Failure(f"{directory} is not empty and nothing is overwritten. Choose another directory (--target)")
    wanted_files = [
        node
        for node in list_files(restic, snapshot["id"])
        if not paths or any(Path(path) in (Path(node["path"]), *Path(node["path"]).parents) for path in paths)
    ]
    require_space(directory, sum(node.get("size", 0) for node in wanted_files), "what is restored")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished.touch()
    included = [part for path in paths for part in ("--include", path)]
    try:
        restic.call("restore", *restic.reading, snapshot["id"], "--target", str(directory), *included)
    except BaseException as error:
        # What is damaged stays so, and the rest is worth keeping. All else can be tried again.
        if DAMAGED in str(error):
            unfinished.unlink()
        else:
            clear(directory)
        raise
    unfinished.unlink()
    files = sum(len(names) for _, _, names in os.walk(directory))
    if not files:
        raise Failure(f"snapshot {snapshot['id'][:8]} has nothing of {' '.join(paths) or 'the paths'}")
    return {
        "target": str(directory), "snapshot": snapshot["id"][:8], "taken": snapshot["time"][:19], "files": files,
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
