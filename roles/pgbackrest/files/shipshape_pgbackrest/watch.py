"""Whether the write-ahead log gets away: told before it is needed, not after."""

from __future__ import annotations

import datetime
import json
import os
import re
import time
from pathlib import Path
from typing import Any, Optional

from shipshape_pgbackrest.tool import Settings, from_epoch, meaning, said
from shipshape_pgbackrest.unattended import cry, now, read_json, space, write

REMIND = 6 * 3600
LOG = Path("/var/log/pgbackrest/main-archive-push-async.log")
DROPPED = b"dropped WAL file"
#: What the process that stores the log met; its words go on until the next line with a time.
REFUSED = re.compile(r"(?:could not push WAL file [^\n]*?|ERROR): \[(\d+)\]:? (.*?)(?=\n\d{4}-|\Z)", re.DOTALL)


def oldest_waiting(settings: Settings) -> tuple[int, Optional[float]]:
    """How many segments PostgreSQL wants archived, and since when the first of them waits."""
    waiting: list[float] = []
    with os.scandir(settings.data / "pg_wal" / "archive_status") as entries:
        for entry in entries:
            if entry.name.endswith(".ready"):
                try:
                    waiting.append(entry.stat().st_mtime)
                except FileNotFoundError:  # archived meanwhile
                    continue
    return len(waiting), min(waiting, default=None)


def why_not_archived() -> str:
    """A sentence of why the log did not get away when that was last tried, with a space behind it; or nothing."""
    if space(LOG.parent)[0] < 1 << 20:
        return (
            f"The disk of {LOG.parent} is full, and what cannot write its own log stores none of PostgreSQL's. "
            "Make room: df -h. "
        )
    try:
        with LOG.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - (1 << 16)))
            tries = stream.read().decode("utf-8", "replace").split("command begin")
    except FileNotFoundError:
        return ""
    # One that is at work has not met anything yet.
    found = REFUSED.findall("".join(tries[-1:] if "command end" in tries[-1] else tries[-2:]))
    return f"{meaning('ERROR: [{:0>3}]: {}'.format(*found[-1]), 1)}. " if found else ""


def dropped_since(log: Path, seen: dict[str, Any]) -> bool:
    """Whether pgBackRest has thrown log away since the last look, as its log says."""
    try:
        status = log.stat()
    except FileNotFoundError:
        return False
    known = seen.get(str(log), {})
    start = known.get("offset", 0) if known.get("inode") == status.st_ino else 0
    start = start if start <= status.st_size else 0
    with log.open("rb") as stream:
        stream.seek(start)
        found = sum(DROPPED in line for line in stream) > 0  # to its end, which `any` would not read to
        seen[str(log)] = {"inode": status.st_ino, "offset": stream.tell()}
    return found


def gap(settings: Settings) -> Optional[datetime.datetime]:
    """The moment up to which the archive has everything, where log was thrown away since."""
    try:
        return datetime.datetime.fromisoformat((settings.state / "gap").read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None


def close_the_gap(settings: Settings) -> None:
    """After a backup: what was thrown away before it is not missed any more."""
    state = settings.state / "watch.json"
    known = read_json(state)
    unseen = dropped_since(LOG, known.setdefault("logs", {}))
    write(state, json.dumps(known) + "\n")
    since = gap(settings) or (until_now(settings) if unseen else None)
    if since is None:
        return
    (settings.state / "gap").unlink(missing_ok=True)
    cry(settings, f"This backup of PostgreSQL on {settings.host} closes the gap of the archive:", [
        f"every moment up to {said(since)}, and from this backup's end on, can be restored, and none between them",
    ])  # fmt: skip


def until_now(settings: Settings) -> datetime.datetime:
    """What was last said of how far the archive reaches."""
    try:
        text = (settings.state / "archived-until").read_text(encoding="utf-8")
        return datetime.datetime.fromisoformat(text.strip())
    except (FileNotFoundError, ValueError):
        return now()


def archived_until(settings: Settings) -> datetime.datetime:
    """What no segment waits for has been archived, but for the one being written, which is closed after a while.

    Nor does one wait that was thrown away: from there on nothing counts until there is a backup.
    """
    _count, since = oldest_waiting(settings)
    moment = time.time()
    reached = from_epoch(min(since, moment) if since else moment - settings.archive_timeout)
    return min(reached, gap(settings) or reached)


def watch(settings: Settings) -> int:
    """Write for monitors how far the archive reaches; tell the webhook when it is behind, and when it has caught up."""
    state = settings.state / "watch.json"
    known = read_json(state)
    count, since = oldest_waiting(settings)
    moment = time.time()
    seen = known.get("logs", {})
    opened = dropped_since(LOG, seen) and gap(settings) is None
    if opened:
        write(settings.state / "gap", until_now(settings).isoformat() + "\n")
    write(settings.state / "archived-until", archived_until(settings).isoformat(timespec="seconds") + "\n")
    if opened:
        cry(settings, f"The archive of PostgreSQL on {settings.host} has a gap:", [
            "the repository could not be reached for so long that the log was thrown away before it filled the disk "
            "(pgbackrest_archive_queue). From here on no moment can be restored until the next backup: "
            "shipshape-pgbackrest run",
        ])  # fmt: skip

    told = known.get("told", 0)
    late = since is not None and moment - since > settings.behind_minutes * 60
    if late and moment - told > REMIND:
        cry(settings, f"The archive of PostgreSQL on {settings.host} is behind:", [
            f"{count} segments of the log wait on the droplet, the first since {said(from_epoch(since or 0))}; the "
            "database runs on. If the droplet were lost now, what was committed since then would be, too. "
            f"{why_not_archived()}Why: {settings.log()} and /var/log/pgbackrest/",
        ])  # fmt: skip
        told = moment
    elif told and not late and gap(settings) is None:
        cry(settings, f"The archive of PostgreSQL on {settings.host} has caught up:", ["nothing waits any more"])
        told = 0
    write(state, json.dumps({"told": told, "logs": seen}) + "\n")
    return 1 if late else 0
