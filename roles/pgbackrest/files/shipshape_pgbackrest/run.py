"""One backup: made, read back, reported; and a cry when it is not."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import signal
import sys
import time
from contextlib import contextmanager
from typing import Any, Iterator

from shipshape_pgbackrest import mail
from shipshape_pgbackrest.tool import (
    Busy,
    Failure,
    Settings,
    Stopped,
    info,
    newest,
    now,
    pgbackrest,
    said,
    stop_time,
    write,
)
from shipshape_pgbackrest.webhook import NotTold, points, tell

#: What `verify` prints where a file of the repository is not what it should be.
BAD = re.compile(r"status: (?:error|invalid)|(?:missing|invalid|other): [1-9]|\bERROR:")


@contextmanager
def lock(settings: Settings, what: str) -> Iterator[None]:
    """One at a time on this host. The kernel lets go of it however the holder ends."""
    path = settings.lock.with_suffix(f".{what}")
    with open(path, "a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise Busy(
                f"another {what} is running: {handle.read().strip() or 'unknown'}. This one did nothing"
            ) from error
        handle.truncate(0)
        handle.write(f"process {os.getpid()}, since {now().isoformat()}\n")
        handle.flush()
        yield


def limit(minutes: float, what: str) -> None:
    """A run that hangs, or is told to stop, ends like one that failed: with a report."""

    def late(*_: Any) -> None:
        raise Stopped(f"the {what} was not done after {minutes} minutes and was stopped (pgbackrest_timeout_minutes)")

    def stopped(*_: Any) -> None:
        raise Stopped(f"the {what} was told to stop before it was done")

    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGINT, stopped)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)


def read_back(label: str) -> None:
    """Every file of the repository against the checksum it was written with, and the new backup among them."""
    out = pgbackrest("verify")
    bad = [line.strip() for line in out.splitlines() if BAD.search(line)]
    if bad:
        named = [line for line in bad if line.startswith(("backup:", "archiveId:"))] or bad
        raise Failure(
            "the backup was stored, and the repository does not give back what was written. What depends on it cannot "
            f"be restored; shipshape-pgbackrest run full begins anew. {'; '.join(named[:3])}"
        )
    last = newest(info())
    if last is None or last["label"] != label:
        raise Failure(f"backup {label} was stored, and the repository does not list it as its newest")


def back_up(settings: Settings, kind: str, report: dict[str, Any]) -> None:
    pgbackrest("backup", f"--type={kind}")
    last = newest(info())
    if last is None:
        raise Failure("pgBackRest said that all went well, and the repository lists no backup")
    read_back(last["label"])
    report.update(
        label=last["label"], type=last["type"], bytes=last["info"]["size"], stored=last["info"]["repository"]["delta"],
        taken=said(stop_time(last)),
    )  # fmt: skip


def run(settings: Settings, kind: str, scheduled: bool) -> int:
    if scheduled and settings.jitter_minutes:
        time.sleep(random.uniform(0, settings.jitter_minutes * 60))
    with lock(settings, "backup"):
        started = time.monotonic()
        report: dict[str, Any] = {
            "status": "failed", "host": settings.host, "repository": settings.repository, "type": kind,
            "started": now().isoformat(), "finished": None, "seconds": None, "failures": [],
        }  # fmt: skip
        try:
            limit(settings.timeout_minutes, "backup")
            back_up(settings, kind, report)
            report["status"] = "ok"
        except Failure as failure:
            report["failures"].append(settings.scrub(str(failure)))
        except OSError as error:  # a full disk, mostly: what is told must not depend on it
            report["failures"].append(f"this host does not let it work, see df -h: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        report["finished"] = now().isoformat()
        report["seconds"] = round(time.monotonic() - started)
        try:
            write(settings.state / "last.json", json.dumps(report, indent=2) + "\n")
            if not report["failures"]:
                write(settings.state / "last-success", report["finished"] + "\n")
        except OSError as error:  # a full disk, of which somebody has to hear all the same
            words = f"the report of the backup cannot be written to {settings.state}: {error.strerror}"
            report["failures"].append(words)
        if report["failures"]:
            cry(settings, f"Backup of PostgreSQL on {settings.host} failed:", report["failures"])
            return 1
        print(f"{report['type']} backup {report['label']}: {report['bytes']} bytes of database, "
              f"{report['stored']} stored, read back, in {report['seconds']} s")  # fmt: skip
        return 0


def cry(settings: Settings, headline: str, lines: list[str]) -> None:
    """To whoever reads the journal, and by webhook and mail, whichever are configured."""
    for line in lines:
        print(f"shipshape-pgbackrest: {settings.scrub(line)}", file=sys.stderr)
    text = settings.scrub(points(headline, lines))
    if settings.webhook:
        try:
            tell(settings.webhook, text)
        except NotTold as error:
            print(f"shipshape-pgbackrest: the webhook was not told: {settings.scrub(str(error))}", file=sys.stderr)
    if settings.mail:
        try:
            mail.send(settings.mail, headline.rstrip(":"), text)
        except mail.NotSent as error:
            print(f"shipshape-pgbackrest: {settings.mail} was not told: {settings.scrub(str(error))}", file=sys.stderr)
