"""A rehearsal: the newest backup and the log into a cluster that is thrown away, compared with the live one."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from shipshape_pgbackrest.postgresql_contents import INDEXES, TABLES, tables
from shipshape_pgbackrest.restore import restore
from shipshape_pgbackrest.side import Side
from shipshape_pgbackrest.tool import LIMIT, Settings, answers, as_postgres, conninfo, from_epoch, lock, psql, said
from shipshape_pgbackrest.unattended import Failure, cry, limit, now, write
from shipshape_pgbackrest.watch import archived_until

NAME = "drill"


def databases(port: int) -> list[str]:
    found: list[str] = json.loads(
        psql("SELECT json_agg(datname) FROM pg_database WHERE datallowconn AND NOT datistemplate", port)
    )
    return found


def count(port: int) -> dict[str, dict[str, Any]]:
    """Of each table its rows, its newest times, and how much was written to it. What takes too long is left out."""
    found = {}
    for database in databases(port):
        command = ["psql", "-XqAtw", "-p", str(port), "-d", conninfo(database), "-f", "-"]
        _code, out, _err = as_postgres(*command, stdin=TABLES)
        found.update({f"{database}: {table}": row for table, row in tables(out).items()})
    return found


def compare(before: dict[str, Any], restored: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs from the live tables. One that was written to meanwhile may differ by as many rows as that."""
    problems = []
    for table, then in before.items():
        now_there = after.get(table)
        if now_there is None:
            continue
        found = restored.get(table)
        if found is None:
            problems.append(f"table {table} is not in what was restored")
            continue
        writes = now_there["writes"] - then["writes"]
        low, high = sorted((then["rows"], now_there["rows"]))
        if not low - writes <= found["rows"] <= high + writes:
            problems.append(f"table {table} has {found['rows']} rows where the live one has {now_there['rows']}")
        elif writes == 0 and found["newest"] != now_there["newest"]:
            problems.append(
                f"the newest times of table {table} are {found['newest']} where the live ones are {now_there['newest']}"
            )
    return problems


def set_limits(side: Side) -> None:
    """What the throwaway cluster may take from the live one: the least share of processor and disk, little memory."""
    limits = ["CPUWeight=10", "IOWeight=10", "MemoryHigh=25%"]
    subprocess.run(["systemctl", "set-property", "--runtime", side.unit, *limits], check=True)


def rehearse(settings: Settings, side: Side, report: dict[str, Any]) -> None:
    alive = answers(settings.port)
    before = count(settings.port) if alive else {}
    # What would be gone now, if the droplet were.
    report["rpo_seconds"] = round((now() - archived_until(settings)).total_seconds())
    set_limits(side)
    result = restore(settings, "latest", NAME, gentle=True)
    report.update(
        backup=result["backup"], up_to=result["up_to"], bytes=result["bytes"], rto_seconds=result["seconds"], indexes=0
    )
    for database in databases(side.port):
        try:
            report["indexes"] += int(psql(INDEXES, side.port, database))
        except Failure as failure:
            report["failures"].append(f"an index of database {database} is damaged: {failure}")
    restored = count(side.port)
    report["tables"], report["rows"] = len(restored), sum(row["rows"] for row in restored.values())
    report["failures"] += compare(before, restored, count(settings.port) if alive else {})
    report["compared"] = len(before)


def drill(settings: Settings) -> int:
    started = now()
    with lock(settings, NAME):
        side = Side(settings, NAME)
        if side.is_ours():  # of a drill that was killed
            side.remove()
        report: dict[str, Any] = {"status": "failed", "host": settings.host, "started": said(started), "failures": []}
        try:
            with limit(settings.timeout_minutes, NAME, LIMIT):
                rehearse(settings, side, report)
        except Failure as failure:
            report["failures"].append(str(failure))
        except OSError as error:  # a full disk, mostly: what is told must not depend on it
            report["failures"].append(f"this host does not let it work, see df -h: {error}")
        finally:
            if side.is_ours():
                side.remove()
            subprocess.run(["systemctl", "revert", side.unit], stderr=subprocess.DEVNULL, check=False)
        return finish(settings, report, time.time() - started.timestamp())


def finish(settings: Settings, report: dict[str, Any], seconds: float) -> int:
    report["failures"] = [settings.scrub(failure) for failure in report["failures"]]
    report["seconds"] = round(seconds)
    report["status"] = "failed" if report["failures"] else "ok"
    name = f"{from_epoch(time.time()):%Y-%m-%dT%H%M%S}.json"
    try:
        write(settings.state / "drills" / name, json.dumps(report, indent=2) + "\n")
        if not report["failures"]:
            write(settings.state / "last-drill-success", now().isoformat() + "\n")
    except OSError as error:  # a full disk, of which somebody has to hear all the same
        report["failures"].append(f"the report of the drill cannot be written to {settings.state}: {error.strerror}")
    if report["failures"]:
        cry(settings, f"The restore drill of PostgreSQL on {settings.host} failed:", report["failures"])
        return 1
    print(
        f"drill of {settings.host}: backup {report['backup']} and the log up to {report['up_to']} answered queries "
        f"after {report['rto_seconds']} s; a loss now would cost {report['rpo_seconds']} s. {report['tables']} tables "
        f"with {report['rows']} rows, {report['compared']} of them compared with the live ones; {report['indexes']} "
        f"indexes are whole. Report: {settings.state / 'drills' / name}"
    )
    return 0
