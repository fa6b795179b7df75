"""The database server of a lost droplet in the place of a bare one's, and its archive gone on with."""

from __future__ import annotations

import datetime
import json
import shutil
import time
from typing import Any, Optional

from shipshape_pgbackrest import promote
from shipshape_pgbackrest.restore import restore
from shipshape_pgbackrest.side import Side, control
from shipshape_pgbackrest.tool import Settings, info, newest, pgbackrest, stop_time
from shipshape_pgbackrest.unattended import Failure, read_json, write

NAME = "rebuilt"


def mark(settings: Settings) -> dict[str, Any]:
    """What plugins/modules/rebuild.py keeps of a droplet that gets, or got, back what it had."""
    return read_json(settings.state.parent / "rebuild.json")


def under_way(settings: Settings) -> bool:
    begun = mark(settings)
    return bool(begun) and not begun.get("finished")


def rebuilt_at(settings: Settings) -> Optional[datetime.datetime]:
    finished = mark(settings).get("finished")
    return datetime.datetime.fromisoformat(str(finished)) if finished else None


def require_version(settings: Settings, stanza: dict[str, Any]) -> None:
    """The files of a cluster are of use to its own major version alone."""
    if not stanza["backup"]:
        raise Failure(
            f"{settings.repository} has no backup of a database server. Is that where the lost droplet's are (its name "
            "in the inventory, or pgbackrest_path)? If it made none, take its nightly dumps: -e restore_dumps=true"
        )
    found = str(stanza["backup"][-1]["version"] or settings.version)
    if found.split(".")[0] != settings.version:
        raise Failure(
            f"the backup is of PostgreSQL {found}, and this droplet has {settings.version}. Take a droplet with the "
            f"release that the lost one had, or say postgresql_version: '{found}' in the inventory (with "
            "postgresql_origin: pgdg, where the release has another); either way begin with a bare droplet. The "
            "nightly dumps go into any later version: -e restore_dumps=true"
        )


def rebuild(settings: Settings, to: str) -> dict[str, Any]:
    """Beside first, then by two renames in the place of the pristine one, which goes. Goes on where it was killed."""
    if not under_way(settings):
        raise Failure("this puts back what a lost droplet had, and is begun by site.yml -e restore_from=latest")
    note = settings.state / "rebuilt.json"
    result = read_json(note)
    if result.get("promoted"):
        return result
    started = time.monotonic()
    side = Side(settings, NAME)
    if not result:
        require_version(settings, info())
        if side.is_ours():  # of a run that was killed
            side.remove()
        # The pristine cluster has nothing to archive, and a restore would wait for it.
        control(f"postgresql@{settings.version}-main.service", "stop")
        result = restore(settings, to, NAME)
        write(note, json.dumps(result) + "\n")
    if side.data.exists() or (settings.state / promote.NOTE).exists():
        promote.promote(settings, NAME)
    for kept in settings.clusters.glob("main_before_*"):
        shutil.rmtree(kept)
    result.update(promoted=True, seconds=round(time.monotonic() - started, 1))
    write(note, json.dumps(result) + "\n")
    return result


def words(result: dict[str, Any]) -> str:
    short = "" if result["whole"] else "; the archive ends there"
    return (
        f"database server with all that was committed up to {result['up_to']} (wanted: {result['wanted']}{short}), "
        f"from backup {result['backup']} and the log: {result['databases']}; {result['bytes']} bytes, in "
        f"{result['seconds']} s"
    )


def open_stanza(settings: Settings) -> bool:
    """Make the stanza, or see that it is this cluster's; whether a backup is to be made now.

    A rebuild from dumps made a cluster anew. Its backups go beside those of the lost one, which stay.
    """
    try:
        pgbackrest("stanza-create")
    except Failure as failure:
        if "of another cluster" not in str(failure) or not rebuilt_at(settings):
            raise
        pgbackrest("stanza-upgrade")
    pgbackrest("check")
    last, since = newest(info()), rebuilt_at(settings)
    # The log of a rebuilt one begins on a timeline of its own, without what was written before it was archived.
    return last is None or (since is not None and stop_time(last) < since)
