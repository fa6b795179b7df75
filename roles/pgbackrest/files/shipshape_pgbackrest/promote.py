"""A restored cluster in the live one's place, and the live one kept."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from shipshape_pgbackrest.side import NotStarted, Side, control, wait
from shipshape_pgbackrest.tool import DATABASES, DiskFull, Settings, pgbackrest, psql
from shipshape_pgbackrest.unattended import Failure, now, read_json, too_full, write

PATIENCE = 120.0
NOTE = "promoting.json"


def promote(settings: Settings, name: str) -> dict[str, Any]:
    """Two renames while both are stopped. A note says which, so that the next run finishes what a killed one began."""
    started = time.monotonic()
    side = Side(settings, name)
    note = settings.state / NOTE
    begun = read_json(note)
    if begun.get("name", name) != name:
        raise Failure(
            f"cluster {begun['name']} is half promoted. Finish that first: shipshape-pgbackrest promote {begun['name']}"
        )
    if not begun:
        if not side.data.exists() or not side.configuration.exists():
            raise Failure(
                f"there is no restored cluster {name}. Restore one first: shipshape-pgbackrest restore --to TIME"
            )
        if side.mark.exists():
            raise Failure(f"cluster {name} is not restored to its end. Restore it again")
        if side.tablespaces.exists() and any(side.tablespaces.iterdir()):
            raise Failure(
                f"the cluster has tablespaces, in {side.tablespaces}, and those are not put in the live ones' place"
            )
        full = too_full(settings.clusters)
        if full:
            raise DiskFull(f"{full}. Nothing was changed: the live server might not start again")
        kept = settings.clusters / f"main_before_{now():%Y%m%dT%H%M%S}"
        begun = {"name": name, "kept": str(kept)}
        write(note, json.dumps(begun) + "\n")
    kept = Path(begun["kept"])
    unit = f"postgresql@{settings.version}-main.service"
    side.stop()
    prepare(side)
    stopped = time.monotonic()
    control(unit, "stop")
    exchange(side, kept)
    control(unit, "start")
    try:
        wait(unit, settings.port, settings.log(), PATIENCE)
    except NotStarted as failure:
        control(unit, "stop")
        os.rename(settings.data, side.data)
        if kept.exists():
            os.rename(kept, settings.data)
        note.unlink()
        control(unit, "start")
        raise Failure(
            f"the restored cluster does not start in the live one's place, where the old one is again. {failure}"
        ) from failure
    down = time.monotonic() - stopped
    shutil.rmtree(side.configuration, ignore_errors=True)
    shutil.rmtree(side.tablespaces, ignore_errors=True)
    note.unlink()
    return {
        "cluster": name, "kept": str(kept) if kept.exists() else "", "down_seconds": round(down, 1),
        "seconds": round(time.monotonic() - started, 1), "databases": psql(DATABASES, settings.port),
    }  # fmt: skip


def prepare(side: Side) -> None:
    """What is to be written, while the live one runs still: a full disk must not keep that from being started again."""
    if side.data.exists():
        side.forget_the_restore()
        side.archive_history()


def exchange(side: Side, kept: Path) -> None:
    """Each step only where it is not done yet."""
    live = side.settings.data
    if side.data.exists():
        if live.exists() and not kept.exists():
            os.rename(live, kept)
        os.rename(side.data, live)


def back_up_anew() -> None:
    """The log goes on on a timeline of its own; a backup on it makes the next restore short."""
    pgbackrest("backup", "--type=diff")


def words(result: dict[str, Any]) -> str:
    former = f"the former one is kept in {result['kept']}. Once nobody needs it any more: rm -r {result['kept']}"
    return (
        f"the restored cluster is the live one now, on its port and with its configuration: {result['databases']}; "
        f"the server was down for {result['down_seconds']} s.\n"
        f"{former if result['kept'] else 'the former one was lost'}"
    )
