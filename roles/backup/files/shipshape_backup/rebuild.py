"""What a lost droplet had, at its own places on a bare one: the one restore that is not beside what is there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from shipshape_backup.make import list_files
from shipshape_backup.postgres import exists, psql
from shipshape_backup.restore import choose, require_space, restore_database, verified
from shipshape_backup.store import FILES, Restic, Settings
from shipshape_backup.unattended import Failure, lock, read_json, write

#: How the comment on a restored database begins. A database with it counts as loaded, so that no schema file is
#: loaded over it: LOADED in plugins/module_utils/postgresql_plan.py.
RESTORED = "Loaded by Shipshape from the backup of "
TABLES = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'm') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND deptype = 'e')
"""


class Reader(Restic):
    """Leaves no lock and heeds none: the one that the lost droplet held when it died would stand in the way."""

    def start(self, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        return super().start("--no-lock", *arguments, **streams)


def under_way(settings: Settings) -> bool:
    """Whether the droplet is just getting back what it had (plugins/modules/rebuild.py says so): nothing is stored."""
    begun = read_json(settings.state.parent / "rebuild.json")
    return bool(begun) and not begun.get("finished")


def rebuild(settings: Settings, what: str, wanted: str) -> list[str]:
    """`files` or `databases`; each once, also when the run before was killed. Says what is back."""
    if not under_way(settings):
        raise Failure("this puts back what a lost droplet had, and is begun by site.yml -e restore_from=latest")
    with lock(settings.lock, "rebuild"):
        path, restic = settings.state / "rebuilt.json", Reader(settings)
        done = read_json(path)
        if what == "files" and "files" not in done:
            done["files"] = put_files_back(restic, wanted)
            write(path, json.dumps(done, indent=2) + "\n")
        for name in settings.databases if what == "databases" else []:
            if name not in done.setdefault("databases", {}):
                done["databases"][name] = put_database_back(restic, name, wanted)
                write(path, json.dumps(done, indent=2) + "\n")
    if what == "files":
        return [
            "files as they were at {taken} UTC (snapshot {snapshot}): {files} put back, {kept} were there already and "
            "stay, in {seconds} s".format(**done["files"])
        ]
    return [
        f"database {name} as it was at {of['taken']} UTC (snapshot {of['snapshot']}): {of['tables']} tables, "
        f"{of['bytes']} bytes, in {of['seconds']} s"
        for name, of in done["databases"].items()
    ]


def put_files_back(restic: Restic, wanted: str, root: Path = Path("/")) -> dict[str, Any]:
    """Fetched whole, then moved to their places."""
    started = time.monotonic()
    snapshot = choose(verified(restic, FILES), wanted, "files")
    stage = restic.settings.state / "rebuild"
    shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
    size = sum(node.get("size", 0) for node in list_files(restic, snapshot["id"]))
    require_space(stage.parent, size, "what is put back")
    stage.mkdir(mode=0o700)
    restic.call("restore", snapshot["id"], "--target", str(stage))
    files, kept = merge(stage, root)
    shutil.rmtree(stage)
    return {
        "snapshot": snapshot["id"][:8], "taken": snapshot["time"][:19].replace("T", " "), "files": files, "kept": kept,
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def merge(source: Path, target: Path) -> tuple[int, int]:
    """Move a tree to where another one is: (files moved, files that were there and stay).

    What is there was written by the run that does this, from an inventory that is newer than the backup.
    """
    moved = kept = 0
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        there = target / entry.name
        if not entry.is_dir(follow_symlinks=False):
            if os.path.lexists(there):
                kept += 1
            else:
                carry(Path(entry.path), there)
                moved += 1
            continue
        if not os.path.lexists(there):
            there.mkdir(mode=0o700)
            adopt(Path(entry.path), there)
        elif not there.is_dir():
            raise Failure(f"{there} is to be a directory, as it was on the lost droplet, and something else is there")
        inside = merge(Path(entry.path), there)
        moved, kept = moved + inside[0], kept + inside[1]
    return moved, kept


def carry(source: Path, target: Path) -> None:
    """Rename, or copy where that is another disk; nobody sees half of it."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = target.with_name(f".{target.name}.rebuild")
        copy.unlink(missing_ok=True)
        shutil.copy2(source, copy, follow_symlinks=False)
        adopt(source, copy)
        os.rename(copy, target)


def adopt(source: Path, target: Path) -> None:
    """Owner and mode; systemd gives an app's directory to its user, should that have another number here."""
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not source.is_symlink():
        target.chmod(status.st_mode & 0o7777)


def put_database_back(restic: Restic, name: str, wanted: str) -> dict[str, Any]:
    """Restored beside, with owner and locale of the empty one that is there, whose name it gets once it is whole."""
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = :'name'"
    if exists(name) and int(psql(TABLES, name)) and not psql(comment, name=name).startswith(RESTORED):
        raise Failure(f"database {name} has tables that are from no backup; a rebuild is for a bare droplet")
    into = f"{name[:54]}_rebuild"
    psql('DROP DATABASE IF EXISTS :"into" WITH (FORCE)', into=into)  # of a run that was killed
    result = restore_database(restic, name, wanted, into)
    taken = result["taken"].replace("T", " ")
    psql(
        "COMMENT ON DATABASE :\"into\" IS :'comment';\n"
        'DROP DATABASE IF EXISTS :"name" WITH (FORCE);\n'
        'ALTER DATABASE :"into" RENAME TO :"name"',
        into=into,
        name=name,
        comment=f"{RESTORED}{taken} UTC",
    )
    return {**result, "taken": taken}
