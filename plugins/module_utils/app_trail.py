"""What every step of a deploy leaves behind: a line in the audit trail, and a word to a webhook."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import urllib.error
import urllib.request
from typing import Any, Iterator

from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import now
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError

TRAIL = "/var/log/shipshape/deploys.log"


def note(app: str, release: str, step: str, outcome: str, who: str, **more: Any) -> None:
    """One line for one step. Old lines are never touched."""
    folder = os.path.dirname(TRAIL)
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o755)
        os.chmod(folder, 0o755)
    handle = os.open(TRAIL, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    try:
        os.fchmod(handle, 0o640)
        try:
            os.fchown(handle, 0, grp.getgrnam("adm").gr_gid)
        except KeyError:
            os.fchown(handle, 0, 0)
        line = {"time": now(), "app": app, "release": release, "step": step, "outcome": outcome, "who": who, **more}
        os.write(handle, (json.dumps(line) + "\n").encode())
    finally:
        os.close(handle)


@contextlib.contextmanager
def step(app: str, release: str, name: str, who: str) -> Iterator[None]:
    """Leave a line about a step, however it ends."""
    try:
        yield
    except AppError as error:
        # What went wrong is worth more than its line: a full disk takes no line either.
        with contextlib.suppress(OSError):
            note(app, release, name, "failed", who, why=str(error).splitlines()[0])
        raise
    note(app, release, name, "done", who)


def tell(webhook: str, text: str) -> str:
    """Post a text in Slack's form. Returns why that failed: a deploy does not fail for it."""
    if not webhook:
        return ""
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(webhook, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        return f"the webhook answered HTTP {error.code}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        return f"the webhook cannot be reached: {reason}"
