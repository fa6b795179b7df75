"""Who is deploying an app: one run at a time, and the next one is told whose it is.

The lock is a note that outlives the steps of a run. Whether its run is still there is known where that run was started:
each run brings a list of the playbooks that run on its controller.
"""

from __future__ import annotations

import calendar
import contextlib
import os
import time
from typing import Any

from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store, now
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, read_record, write_record

#: Longer than any step takes. A run that has been quiet for so long is over.
STALE_AFTER = 3600


def holder_options() -> dict[str, Any]:
    """The run as the filter app_holder describes it."""
    return dict(
        run=dict(type="str", default=""),
        controller=dict(type="str", default=""),
        who=dict(type="str", default=""),
        why=dict(type="str", default=""),
        alive=dict(type="list", elements="str"),
    )


def _age(lock: dict[str, Any]) -> float:
    try:
        return time.time() - calendar.timegm(time.strptime(str(lock.get("touched")), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return float("inf")


def _describe(lock: dict[str, Any]) -> str:
    return "{} of {} on {} since {}".format(
        lock.get("why") or "a deploy", lock.get("who") or "somebody", lock.get("controller"), lock.get("since")
    )


def _is_over(lock: dict[str, Any], holder: dict[str, Any]) -> bool:
    """Whether the lock's run was started on this controller and is not there any more."""
    same = lock.get("controller") == holder["controller"]
    return same and holder["alive"] is not None and lock.get("run") not in holder["alive"]


def acquire(store: Store, holder: dict[str, Any], break_lock: bool = False) -> str:
    """Take the lock, or fail with the name of who has it. Returns what is to be said of a lock that was taken away."""
    lock = read_record(store.lock_path)
    said = ""
    if lock and lock.get("run") != holder["run"]:
        if _is_over(lock, holder):
            said = f"{store.app}: an earlier run was cut off ({_describe(lock)}); this one takes over"
        elif break_lock:
            said = f"{store.app}: the lock was broken ({_describe(lock)})"
        else:
            age = _age(lock)
            ending = (
                f"it has done nothing for {int(age // 60)} minutes and is probably dead;"
                " take over with -e break_lock=true"
                if age > STALE_AFTER
                else "wait for its end, or, if you know that it is dead, take over with -e break_lock=true"
            )
            raise AppError(store.app, "lock", f"another run is at work: {_describe(lock)}; {ending}")
    record = {key: holder[key] for key in ("run", "controller", "who", "why")}
    since = (lock or {}).get("since") if not said and lock else now()
    write_record(store.lock_path, dict(record, since=since, touched=now()))
    return said


def hold(store: Store, run: str) -> None:
    """Go on only if the lock is still this run's; and show that it is alive."""
    lock = read_record(store.lock_path)
    if lock and lock.get("run") == run:
        # On a full disk it stays as old as it is: what was half made wants to be removed all the same.
        with contextlib.suppress(OSError):
            write_record(store.lock_path, dict(lock, touched=now()))
    elif run:
        taken = f"{_describe(lock)} has taken this app over" if lock else "the lock is gone"
        raise AppError(store.app, "lock", f"{taken}; this run stops")


def release(store: Store, run: str) -> None:
    """Give the lock back, if it is still this run's."""
    lock = read_record(store.lock_path)
    if lock and lock.get("run") == run:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(store.lock_path)


def who(store: Store) -> str:
    return str((read_record(store.lock_path) or {}).get("who") or "")
