"""The cluster as it was at a moment, beside the live one."""

from __future__ import annotations

import datetime
import re
import time
from typing import Any, Optional

from shipshape_pgbackrest.side import NotStarted, Side, free_port, require_space
from shipshape_pgbackrest.tool import DATABASES, Settings, answers, from_epoch, info, pgbackrest, psql, said, stop_time
from shipshape_pgbackrest.unattended import Failure, now
from shipshape_pgbackrest.watch import archived_until, gap, why_not_archived

ENDED_EARLY = "recovery ended before configured recovery target was reached"
A_DAY = 86400.0


def moment(text: str) -> datetime.datetime:
    """A time as a person writes it; without a zone it is UTC."""
    plain = re.sub(r"\s*(UTC|GMT|Z)$", "+00:00", text.strip())
    plain = re.sub(r"\s+([+-]\d\d):?(\d\d)?$", lambda found: f"{found[1]}:{found[2] or '00'}", plain)
    plain = re.sub(
        r"([+-]\d\d)(\d\d)?$", lambda found: f"{found[1]}:{found[2] or '00'}" if ":" in plain else found[0], plain
    )
    try:
        parsed = datetime.datetime.fromisoformat(plain)
    except ValueError as error:
        raise Failure(
            f"'{text}' is no time; write it as '2026-01-31 02:00' or '2026-01-31 02:00:30 UTC', or latest"
        ) from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.timezone.utc)


def choose(
    backups: list[dict[str, Any]], target: Optional[datetime.datetime], present: datetime.datetime
) -> dict[str, Any]:
    """The newest backup that was whole at that time."""
    if not backups:
        raise Failure("the repository has no backup yet. Make one: shipshape-pgbackrest run full")
    span = f"possible is every moment from {said(stop_time(backups[0]))} to {said(present)}"
    if target is None:
        return backups[-1]
    if target > present:
        raise Failure(f"{said(target)} is in the future; {span}")
    # A backup's time is in whole seconds, and it is consistent only at its very end.
    found = [backup for backup in backups if stop_time(backup) + datetime.timedelta(seconds=1) <= target]
    if not found:
        raise Failure(f"{said(target)} is before the end of the first backup; {span}")
    return found[-1]


def require_version(backup: dict[str, Any], version: str) -> None:
    """What another major version has written, this server cannot read."""
    if backup["version"] not in (None, version):
        raise Failure(
            f"the backup for that moment, {backup['label']}, is of PostgreSQL {backup['version']}, and this server is "
            f"{version}. Restore it on a droplet of its own with postgresql_version '{backup['version']}' and this "
            "repository (pgbackrest_path)"
        )


def close_the_log(settings: Settings, patience: float = 90) -> bool:
    """Have all that was committed so far archived; false where the live cluster does not answer any more."""
    if not answers(settings.port):
        return False
    # Recovery recognises that it has come to a moment by a commit after it. An idle cluster has none: here is one.
    # A transaction of its own each: what is asked for in the same one could not see the commit.
    psql("BEGIN; SELECT txid_current(); COMMIT;", settings.port)
    closed = psql("SELECT pg_walfile_name(pg_switch_wal())", settings.port)
    deadline = time.monotonic() + patience
    arrived = f"SELECT coalesce(last_archived_wal, '') >= '{closed}' COLLATE \"C\" FROM pg_stat_archiver"
    while psql(arrived, settings.port) != "t":
        if time.monotonic() > deadline:
            raise Failure(
                f"PostgreSQL's log does not reach the repository: {closed} is not archived after {patience:.0f} s. "
                f"{why_not_archived()}Why: {settings.log()} and /var/log/pgbackrest/"
            )
        time.sleep(0.2)
    return True


def reach(settings: Settings, target: Optional[datetime.datetime]) -> bool:
    """The same, where it is needed: what was archived long ago can be restored while the archive is behind."""
    try:
        return close_the_log(settings)
    except Failure as failure:
        until = archived_until(settings)
        if target is None or target > until:
            raise Failure(f"{failure}. What is archived can be restored: restore --to '{said(until)}'") from failure
        return True


def restore(settings: Settings, to: str, name: str = "restored", gentle: bool = False) -> dict[str, Any]:
    """Fetch, replay, and leave a cluster that runs; what it became of is said by the result."""
    started = time.monotonic()
    present = now()
    target = None if to == "latest" else moment(to)
    side = Side(settings, name)
    side.require_free()
    backup = choose(info()["backup"], target, present)
    require_version(backup, settings.version)
    require_space(settings.clusters, int(backup["info"]["size"]))
    alive = reach(settings, target)
    side.begin()
    try:
        fetch(side, backup, target, gentle)
        fetched = time.monotonic()
        side.configure(free_port(settings.port))
        # Recovery takes the end of what is there for the end of all, where log was thrown away.
        whole = replay(side, target, alive) and not (target is None and gap(settings))
        reached = psql("SELECT extract(epoch FROM pg_last_xact_replay_timestamp())", side.port)
    except BaseException:  # also what a full disk does not let this write
        side.remove()
        raise
    side.finish()
    return {
        "cluster": name, "port": side.port, "directory": str(side.data), "backup": backup["label"],
        "wanted": said(target) if target else "latest", "whole": whole,
        # Nothing was replayed that had been committed after the backup: it is as the backup was.
        "up_to": said(from_epoch(float(reached))) if reached else said(stop_time(backup)),
        "bytes": int(psql("SELECT sum(pg_database_size(oid)) FROM pg_database", side.port)),
        "databases": psql(DATABASES, side.port),
        "fetch_seconds": round(fetched - started, 1), "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def fetch(side: Side, backup: dict[str, Any], target: Optional[datetime.datetime], gentle: bool) -> None:
    aim = ["--type=default"]
    if target:
        aim = ["--type=time", f"--target={target.isoformat(sep=' ')}", "--target-action=promote"]
    pgbackrest(
        "restore",
        f"--pg1-path={side.data}",
        # Where the live cluster has tablespaces, their links would lead into the live ones.
        f"--tablespace-map-all={side.tablespaces}",
        f"--set={backup['label']}",
        *aim,
        nice=gentle,
        disks=[side.settings.clusters],
    )


def replay(side: Side, target: Optional[datetime.datetime], alive: bool) -> bool:
    """Start it; false where the archive ends before the moment that was asked for, and all that is there was taken."""
    try:
        side.start(A_DAY, spare=True)
        return True
    except NotStarted as failure:
        log = side.log.read_text(encoding="utf-8", errors="replace") if side.log.exists() else ""
        if target is None or ENDED_EARLY not in log:
            raise
        if alive:
            raise Failure(
                "the archive has a gap before that moment, so it cannot be reached. Choose an earlier one "
                f"(the log of what was tried: {failure})"
            ) from failure
    auto = side.data / "postgresql.auto.conf"
    auto.write_text(
        "".join(f"{line}\n" for line in auto.read_text().splitlines() if not line.startswith("recovery_target"))
    )
    side.start(A_DAY, spare=True)
    return False


def words(result: dict[str, Any], settings: Settings) -> str:
    short = "" if result["whole"] else f"; the archive ends there, before {result['wanted']}"
    return (
        f"PostgreSQL of {settings.host} is restored beside the live one, from backup {result['backup']} and the log, "
        f"with all that was committed up to {result['up_to']} (wanted: {result['wanted']}{short}), "
        f"in {result['seconds']} s.\n"
        f"databases {result['databases']}: {result['bytes']} bytes in {result['directory']}\n"
        f"look at it:  sudo -u postgres psql -p {result['port']} DATABASE\n"
        f"put it in the live one's place:  shipshape-pgbackrest promote {result['cluster']}\n"
        f"remove it:  shipshape-pgbackrest drop {result['cluster']}"
    )
