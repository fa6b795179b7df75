"""A droplet that gets back what a lost one had: from which moment, whether it is bare, and how far it has come.

What is restored, and how, is the programs' of the roles backup and pgbackrest; they read the mark that is kept here.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from typing import Any, Dict, List, Optional

MARK = "/var/lib/shipshape/rebuild.json"
#: What `shipshape-pgbackrest rebuild` leaves once the server is restored, beside the pristine one or in its place.
SERVER_RESTORED = "/var/lib/shipshape/pgbackrest/rebuilt.json"
LATEST = "latest"
TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?( ?(Z|UTC|[+-]\d\d(:?\d\d)?))?")
#: Objects of the server's own, and those that an extension brought, are nobody's data.
TABLES = """
SELECT json_build_object('tables', count(*)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'm') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND deptype = 'e')
"""
DATABASES = "SELECT json_agg(datname ORDER BY datname) FROM pg_database WHERE datallowconn AND NOT datistemplate"
#: From this number on PostgreSQL gives them to what users make.
FIRST_OF_USERS = 16384


class Refused(Exception):
    """The droplet is not to be rebuilt; the text says why, and what to do."""


def moment(text: str, now: datetime.datetime) -> str:
    """`latest`, or a time as the programs take it (UTC, ISO 8601)."""
    text = text.strip()
    if text == LATEST:
        return LATEST
    wanted = None
    if TIME.fullmatch(text):
        plain = re.sub(r" ?(Z|UTC)$", "+00:00", text)
        plain = (
            re.sub(r" ?([+-]\d\d):?(\d\d)?$", lambda found: f"{found[1]}:{found[2] or '00'}", plain)
            if (":" in plain)
            else plain
        )
        try:
            wanted = datetime.datetime.fromisoformat(plain)
        except ValueError:
            wanted = None
    if wanted is None:
        raise Refused(
            f"restore_from is '{text}', and has to be latest or a time such as '2026-01-31 02:00' (UTC). Whose backups "
            "are meant is not said here: those that were made under the droplet's name in the inventory. If the lost "
            "one was called otherwise, give its variables backup_prefix: NAME and pgbackrest_path: /pgbackrest/NAME"
        )
    if wanted.tzinfo is None:
        wanted = wanted.replace(tzinfo=datetime.timezone.utc)
    wanted = wanted.astimezone(datetime.timezone.utc)
    if wanted > now:
        raise Refused(f"restore_from is {wanted:%Y-%m-%d %H:%M:%S} UTC, which is in the future")
    return wanted.isoformat(timespec="seconds")


def read_mark(path: str = MARK) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as handle:
            found: Dict[str, Any] = json.load(handle)
            return found
    except FileNotFoundError:
        return {}


def write_mark(mark: Dict[str, Any], path: str = MARK) -> None:
    """At once and whole; there is no secret in it."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as handle:
        json.dump(mark, handle, indent=2)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def goes_on(mark: Dict[str, Any], wanted: str) -> bool:
    """Whether an earlier run has begun this; it has to have been from the same moment."""
    if not mark:
        return False
    if mark["from"] != wanted:
        state = (
            f"was rebuilt from {mark['from']} on {mark['finished']}"
            if mark.get("finished")
            else (f"is in the middle of being rebuilt from {mark['from']}")
        )
        raise Refused(
            f"this droplet {state}, and restore_from is {wanted} now. Nothing was changed. To go on, say what was said "
            "then; for another moment, begin with a bare droplet, or restore beside what lives: playbooks/restore.yml"
        )
    return True


def count_files(folder: str, most: int = 1000) -> int:
    """Files below a folder, up to so many."""
    found = 0
    for _path, _folders, files in os.walk(folder):
        found += len(files)
        if found >= most:
            return most
    return found


def databases_on_disk(data: str) -> int:
    """How many databases users have made in a cluster that nobody can ask."""
    try:
        names = os.listdir(os.path.join(data, "base"))
    except OSError:
        return 0
    return sum(name.isdigit() and int(name) >= FIRST_OF_USERS for name in names)


def refusal(found: List[str]) -> Optional[str]:
    """What to say of a droplet that is not bare."""
    if not found:
        return None
    return (
        f"this droplet has data, and restore_from is for a bare one: {'; '.join(found)}. Nothing was changed.\n"
        "- Is it the droplet itself that lives? Run site.yml without restore_from. What was lost of its data comes "
        "back beside what is there: playbooks/restore.yml.\n"
        "- Was it set up by a site.yml without restore_from? Have the provider rebuild it from its image, and say "
        "restore_from at the first run.\n"
        "- Is another one the lost one? Say which: --limit NAME."
    )
