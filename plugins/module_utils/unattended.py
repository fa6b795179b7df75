"""What programs share that run while nobody looks: one at a time, not for ever, and somebody hears of a failure.

Roles put this file beside their own programs on a droplet: it needs nothing but Python, and mail.py and webhook.py
beside it.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Protocol, Tuple

from . import mail, webhook

POLL = 1.0  # seconds between two looks at a lock that another holds
#: Bytes of a disk that are left to others, of a small one a twentieth: PostgreSQL stops when it cannot write its log.
LEAST = 256 << 20
DISK_FULL = "a disk of this host is full. See which, and make room: df -h. Nothing that was stored is lost"


class Failure(Exception):
    """Something went wrong; the text says what, and what to do."""


class Stopped(Failure):
    """The run as a whole is to end: it took too long, or somebody told it to."""


class Busy(Failure):
    """Another run holds the lock."""


class Waited(Busy):
    """Another run has held the lock for as long as this one could wait, and nobody was there to see it."""


class Told(Protocol):
    """Who is told of what goes wrong: the settings of a program."""

    program: str
    webhook: str
    mail: str

    def scrub(self, text: str) -> str:
        """The text without any secret."""


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def write(path: Path, text: str) -> None:
    """Readable by a monitor, and never half written."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)


def read_json(path: Path) -> Dict[str, Any]:
    """What there is, or nothing."""
    try:
        found: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def scratch() -> IO[bytes]:
    """A file in memory: what a program says of a full disk must not need room on it."""
    return os.fdopen(os.memfd_create("shipshape"), "w+b")


def space(path: Path) -> Tuple[int, int]:
    """(bytes free on the disk that has it, or will; how many of them are left to others)."""
    usage = shutil.disk_usage(next(there for there in (path, *path.parents) if there.exists()))
    return usage.free, min(LEAST, usage.total // 20)


def too_full(path: Path) -> str:
    """Why nothing more is to be written there, or nothing."""
    free, others = space(path)
    if free >= others:
        return ""
    return (
        f"the disk of {path} has {free >> 20} MB left, and {others >> 20} MB are left to others, such as PostgreSQL, "
        "which stops on a full disk. Make room (df -h), or choose another disk. Nothing that was stored is lost"
    )


@contextmanager
def lock(path: Path, what: str, patience: float = 0) -> Iterator[None]:
    """One at a time on this host. The kernel lets go of it however the holder ends.

    `patience`: seconds to wait for one that does something else. One that does the same is not waited for.
    """
    with open(path, "a+", encoding="utf-8") as handle:
        _take(handle, what, patience)
        handle.truncate(0)
        handle.write(f"{what}, process {os.getpid()}, since {now().isoformat()}\n")
        handle.flush()
        yield


def _take(handle: Any, what: str, patience: float) -> None:
    begun, waits = time.monotonic(), False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip()
        kind, _, details = holder.partition(", ")
        if kind == what:
            raise Busy(f"another {what} is running: {details}. This one did nothing")
        if time.monotonic() - begun >= patience:
            words = f"a {kind} is running: {details}" if details else "another run is at work, and does not say which"
            number = re.search(r"process (\d+)", details)
            end = f", or kill {number[1]} has ended it" if number else ""
            if not patience:
                raise Busy(f"{words}. This {what} did nothing; it can be run when that is done{end}")
            raise Waited(f"{words}. This {what} has waited {round(patience / 60)} minutes for its end and did nothing")
        if not waits and details:  # which one that has just taken it has not said yet
            print(f"waiting until it is done: {holder}", file=sys.stderr, flush=True)
            waits = True
        time.sleep(POLL)


@contextmanager
def limit(minutes: float, what: str, setting: str) -> Iterator[None]:
    """What hangs, or is told to stop, ends like what failed: with a report. `setting` is where the minutes are from."""

    def late(*_: Any) -> None:
        raise Stopped(f"the {what} was not done after {minutes} minutes and was stopped ({setting})")

    def stopped(*_: Any) -> None:
        raise Stopped(f"the {what} was told to stop before it was done")

    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGINT, stopped)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def cry(settings: Told, headline: str, lines: List[str]) -> None:
    """To whoever reads the journal, and by webhook and mail, whichever are configured.

    That one of them does not work does not keep the other from it.
    """
    for line in lines:
        print(f"{settings.program}: {settings.scrub(line)}", file=sys.stderr)
    text = settings.scrub(webhook.points(headline, lines))
    if settings.webhook:
        try:
            webhook.tell(settings.webhook, text)
        except webhook.NotTold as error:
            print(f"{settings.program}: the webhook was not told: {settings.scrub(str(error))}", file=sys.stderr)
    if settings.mail:
        try:
            mail.send(settings.mail, headline.rstrip(":"), text)
        except mail.NotSent as error:
            print(f"{settings.program}: {settings.mail} was not told: {settings.scrub(str(error))}", file=sys.stderr)
