"""The kinds of app there are, and what they have in common."""

from __future__ import annotations

TYPES = ("python", "command", "container", "compose", "static")
#: Those with a process of their own, which a new release can be started beside.
PROCESS_TYPES = ("python", "command", "container", "compose")
#: Those of them that run from a checkout, and not from an image.
CODE_TYPES = ("python", "command")
#: Those whose process is in a container, made of an image that is kept with the release.
IMAGE_TYPES = ("container", "compose")
#: Where roles/app puts the program that applies SQL migrations.
SQL_PROGRAM = "/usr/local/lib/shipshape/shipshape_sql.py"

#: What works on the data at large, in a session of its own: dumps, locks and advisory locks know no pooler.
DIRECT_SCRIPTS = ("migrate", "unmigrate", "seed", "hook.before_migrate", "hook.after_migrate")


def process_unit(app: str, process: str, number: int, colour: str) -> str:
    """The unit of a process beside the one that answers requests. No app's name has a dot, so no app can have it."""
    return "{}.{}{}@{}.service".format(app, process, "" if number == 1 else f"-{number}", colour)


def cron_unit(app: str, entry: str) -> str:
    """The unit that runs what a line of an app's crontab says."""
    return f"{app}.{entry}.service"
